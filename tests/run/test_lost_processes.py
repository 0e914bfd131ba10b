"""A process that does not arrive, dies or hangs is named by every other one, all end, and fewer processes resume the run."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, TINY, Command, only_run, recorded

DDP = ["trainer=ddp", "trainer.devices=2"]
ENDLESS = [*TINY[:-2], "name=tiny", "trainer.max_epochs=100000", "data.num_workers=0", "rank_timeout=30"]
KILL = '''
import os, signal, threading
from lightning import Callback

class Kill(Callback):
    """Sends a signal to the process of one rank in the third epoch; without a name, its main thread hangs instead."""

    def __init__(self, rank: int, name: str):
        self.rank, self.name = rank, name

    def on_train_epoch_start(self, trainer, *_):
        if trainer.global_rank == self.rank and trainer.current_epoch == 2:
            if self.name == "none":
                threading.Event().wait()
            os.kill(os.getpid(), getattr(signal, self.name))

class HangInBackward(Callback):
    """Has the main thread of one rank hang in the middle of a backward pass, at which the others wait."""

    def __init__(self, rank: int):
        self.rank = rank

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_rank == self.rank and trainer.current_epoch == 2:
            next(module.network.parameters()).register_hook(lambda gradient: threading.Event().wait())
'''


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def killer(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "killer.py").write_text(KILL)
    yield
    for process in Path("/proc").glob("[0-9]*"):  # A stopped process of the run would stay for ever.
        try:
            if (process / "cwd").resolve() == tmp_path:
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def killing(rank: int, name: str) -> str:
    return f"+callbacks.kill={{_target_: killer.Kill, rank: {rank}, name: {name}}}"


def node(folder: Path, port: int, number: int, *arguments: str) -> subprocess.Popen[str]:
    """Starts one of two nodes on this machine by torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={number}", "--nproc-per-node=1"]
    place = ["--master-addr=127.0.0.1", f"--master-port={port}"]
    words = [str(ROOT / "train.py"), *ENDLESS, "trainer=ddp", "trainer.num_nodes=2", "trainer.devices=1", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen([*torchrun, *place, *words], cwd=folder, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.usefixtures("killer")
def test_a_killed_process_is_named_and_ends_the_run_with_the_command_that_continues_it(process: Command) -> None:
    outcome = process("train", *ENDLESS, *DDP, killing(1, "SIGKILL"))
    assert outcome.code == 76
    first, last, command = outcome.err.strip().splitlines()
    assert first.startswith("error: rank 1 of 2 on ")
    assert first.endswith("was killed by SIGKILL")
    assert last.startswith("the last checkpoint is runs/tiny/")
    assert command.startswith("continue with: python ")


@pytest.mark.slow
@pytest.mark.usefixtures("killer")
def test_the_first_process_is_named_by_the_other_one_when_it_is_killed(process: Command) -> None:
    outcome = process("train", *ENDLESS, *DDP, killing(0, "SIGKILL"))
    assert outcome.code == -signal.SIGKILL
    assert "error: rank 0 of 2, to which all others are connected, was killed" in outcome.err
    assert "continue with: python " in outcome.err


@pytest.mark.slow
@pytest.mark.usefixtures("killer")
def test_the_first_node_is_named_by_the_other_one_when_it_is_stopped(tmp_path: Path, port: int) -> None:
    nodes = [node(tmp_path, port, number, killing(0, "SIGSTOP")) for number in range(2)]
    _, err = nodes[1].communicate(timeout=200)
    assert "error: rank 0 of 2 on" in err
    assert "has given no sign of life for" in err
    assert "continue with: torchrun ... " in err


@pytest.mark.slow
@pytest.mark.usefixtures("killer")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_whose_main_thread_hangs_is_named_with_the_line_where_it_hangs(process: Command, rank: int) -> None:
    outcome = process("train", *ENDLESS, *DDP, killing(rank, "none"))
    assert outcome.code == 76
    assert (
        len(re.findall(rf"^error: rank {rank} of 2 on \S+ hangs: others have waited for it for 30 s", outcome.err, re.M)) == 2
    )
    assert re.search(r"; its main thread is at .*killer.py:\d+, in on_train_epoch_start", outcome.err)
    assert "continue with: python " in outcome.err


@pytest.mark.slow
@pytest.mark.usefixtures("killer")
def test_a_process_that_hangs_within_a_backward_pass_is_named(process: Command) -> None:
    outcome = process("train", *ENDLESS, *DDP, "+callbacks.hang={_target_: killer.HangInBackward, rank: 1}")
    assert outcome.code == 76
    assert len(re.findall(r"^error: rank 1 of 2 on \S+ hangs: others have waited for it for 30 s", outcome.err, re.M)) == 2
    assert re.search(r"; its main thread is at .*killer.py:\d+, in <lambda>", outcome.err)


@pytest.mark.slow
@pytest.mark.usefixtures("killer")
@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
def test_a_killed_or_stopped_node_is_named_on_the_other_one_and_a_node_fewer_continues_the_run(
    tmp_path: Path, port: int, command: Command, signal: str
) -> None:
    nodes = [node(tmp_path, port, number, killing(1, signal)) for number in range(2)]
    _, err = nodes[0].communicate(timeout=200)
    assert "error: rank 1 of 2 on" in err
    assert "has given no sign of life for" in err
    assert "continue with: torchrun ... " in err
    changes = ["trainer.devices=1", "trainer.num_nodes=1", "trainer.max_epochs=4"]
    resumed = command(
        "train", f"resume={next((tmp_path / 'runs' / 'tiny').iterdir())}", *changes, "resume_with=[callbacks,trainer]"
    )
    assert resumed.code == 0, resumed.err
    assert recorded(only_run(tmp_path))["run.updates"] == 16
    assert (only_run(tmp_path) / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_processes_that_do_not_arrive_are_named(command: Command, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three processes that something else has started, two are missing; the first one and any other one name them."""
    for name, value in {
        "LOCAL_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": 3,
        "NODE_RANK": 0,
    }.items():
        monkeypatch.setenv(name, str(value))
    outcome = command("train", *TINY, "trainer=ddp", "trainer.devices=3", "rank_timeout=1")
    assert outcome.code == 76
    assert outcome.err.startswith("error: ranks 1, 2 of 3 did not arrive within 1 s")
    assert outcome.err.splitlines()[1].endswith("trainer=ddp trainer.devices=3 rank_timeout=1")
    assert "start it again with: " in outcome.err
    assert not Path("runs").exists()
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("MASTER_PORT", str(other := free_port()))  # This process may still have the store of the first command.
    outcome = command("train", *TINY, "trainer=ddp", "trainer.devices=3", "rank_timeout=1")
    assert outcome.code == 76
    assert outcome.err.startswith(f"error: rank 0 of 3 at 127.0.0.1:{other} did not arrive within 1 s")


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_cpu_offload", "{_target_: lightning.pytorch.strategies.FSDPStrategy}"])
def test_the_older_sharding_of_lightning_is_refused_with_the_choice_that_replaces_it(command: Command, strategy: str) -> None:
    """It would clip gradients by the norms of its shards."""
    outcome = command("train", *TINY, "trainer.devices=2", f"trainer.strategy={strategy}")
    assert outcome.code == 2
    assert "choose trainer=fsdp" in outcome.err


def test_a_port_that_another_program_uses_is_refused_before_anything_starts(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        monkeypatch.setenv("MASTER_PORT", str(busy.getsockname()[1]))
        outcome = command("train", *TINY, *DDP)
    assert outcome.code == 2
    assert outcome.err.startswith(
        f"error: MASTER_PORT={os.environ['MASTER_PORT']} cannot be used: Address already in use; set another"
    )
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "LOCAL_RANK",
            "0",
            "error: the environment variable LOCAL_RANK=0 says that this process belongs to a run on several devices",
        ),
        ("LOCAL_RANK", "3", "Unset LOCAL_RANK, or start the processes with torchrun, SLURM or trainer.devices=N"),
        ("SLURM_PROCID", "abc", "error: the environment variable SLURM_PROCID=abc must be a non-negative integer; unset it"),
        ("NODE_RANK", "-1", "error: the environment variable NODE_RANK=-1 must be a non-negative integer; unset it"),
        ("MASTER_PORT", "70000", "error: the environment variable MASTER_PORT=70000 must be a port from 1 to 65535"),
    ],
)
@pytest.mark.parametrize("job", ["train", "eval"])
def test_what_is_left_of_another_launch_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, job: str, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    outcome = command(job, *(TINY if job == "train" else ["checkpoint=none.ckpt"]))
    assert outcome.code == 2
    assert message in outcome.err
    assert not Path("runs").exists()
