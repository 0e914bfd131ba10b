"""The roll call at the beginning of a run on several devices, after which its processes share a store."""

import os
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from time import monotonic, sleep
from typing import Any

from lightning import Trainer
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from swin_lab.errors import UserError
from swin_lab.run.ending import LostRankError
from swin_lab.run.progress import Place

LOOK_S = 0.1
"""Seconds between two looks at the store."""


def environment_of(trainer: Trainer) -> Any:
    """Returns what Lightning knows about the processes of a run and what has started them; None for a single process."""
    return getattr(trainer.strategy, "cluster_environment", None)


def started_from_outside(trainer: Trainer) -> bool:
    """Returns whether torchrun or SLURM, not Lightning, has started the processes of a run."""
    environment = environment_of(trainer)
    return environment is not None and environment.creates_processes_externally


def check_port() -> None:
    """Checks that the first process, which this one is, can open the port that MASTER_PORT names, if it is set.

    Raises:
        UserError: another program uses it.
    """
    port = os.environ.get("MASTER_PORT")
    if port and os.environ.get("NODE_RANK", "0") == "0":
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", int(port)))
            except OSError as error:
                raise UserError(
                    f"MASTER_PORT={port} cannot be used: {error.strerror}; set another, or unset it, and a free one is chosen"
                ) from error


def call_the_roll(trainer: Trainer, timeout_s: float, ended_children: Callable[[], Sequence[int]]) -> Store:
    """Waits until every process of a run has arrived.

    The store is at the address of the process group, which uses it as well.

    Args:
        trainer: a Trainer, which knows the processes and where they meet.
        timeout_s: seconds to wait.
        ended_children: returns the ranks of those that this process has started and that have ended.

    Returns:
        A store with these keys for every rank: `name/RANK`, the name of its machine, `beat/RANK`, `status/RANK` and
        `place/RANK`; and with `alarm` and `verdict`, which are empty.

    Raises:
        UserError: the port is in use.
        LostRankError: a process does not arrive.
    """
    environment, rank, world_size = environment_of(trainer), int(trainer.global_rank), int(trainer.world_size)
    address, port, limit = environment.main_address, environment.main_port, timedelta(seconds=timeout_s)
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # torchrun has started a store already.
    place = f" at {address}:{port}"
    try:
        server = TCPStore(address, port, None, hosts, limit, wait_for_workers=False, multi_tenant=True)
    except RuntimeError as error:
        if hosts:
            raise UserError(
                f"the processes of the run cannot meet at MASTER_ADDR={address} MASTER_PORT={port}: another program uses the "
                "port, or the address is not of this machine; set another MASTER_PORT, or unset it"
            ) from error
        raise LostRankError(_absent([0], world_size, place, timeout_s)) from error
    store = PrefixStore("swin_lab", server)
    for key, value in (("name", socket.gethostname()), ("beat", "0"), ("status", ""), ("place", str(Place())), ("here", "")):
        store.set(f"{key}/{rank}", value)
    if rank == 0:
        missing = _missing(store, list(range(1, world_size)), timeout_s, ended_children)
        store.set("alarm", "")
        store.set("verdict", _absent(missing, world_size, "", timeout_s) if missing else "")
    try:
        store.wait(["verdict"], limit)
    except RuntimeError as error:
        raise LostRankError(_absent([0], world_size, place, timeout_s)) from error
    verdict = store.get("verdict").decode()
    if verdict:
        raise LostRankError(verdict)
    return store


def _missing(store: Store, ranks: list[int], timeout_s: float, ended_children: Callable[[], Sequence[int]]) -> Sequence[int]:
    until = monotonic() + timeout_s
    while monotonic() < until:
        ranks = [rank for rank in ranks if not store.check([f"here/{rank}"])]
        if not ranks:
            break
        ended = ended_children()
        if ended:
            return ended
        sleep(LOOK_S)
    return ranks


def _absent(ranks: Sequence[int], world_size: int, place: str, timeout_s: float) -> str:
    names = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
    return f"{names} of {world_size}{place} did not arrive within {timeout_s:g} s"
