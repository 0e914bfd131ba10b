"""Kills a training run at random moments, resumes it with `resume=auto`, and compares it with a run that nobody killed.

    python benchmarks/survival.py --kills 200               # one process
    python benchmarks/survival.py --kills 20 --processes 2  # two processes, which are killed together

Final weights, moving average, optimizer state, schedule and metrics.csv must be the same to the bit. The run trains a tiny
network on the digits, with drop path, and evaluates in the middle of epochs, too. Half of the kills happen at random times,
the others at moments that times rarely hit: within evaluations and at each step of writing a checkpoint. Every second killed
run loads its images in a worker process. Further arguments are overrides of train.py.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from swin_lab.record import find_records, is_finished
from swin_lab.run.entry import main as train_main
from swin_lab.run.resume import newest_unfinished
from swin_lab.training import checkpoint_io
from swin_lab.training.engine import RUN_STATE_KEY, Engine

ROOT = Path(__file__).parents[1]
OVERRIDES = (
    "model.embed_dim=8",
    "model.depths=[1,2]",
    "model.num_heads=[1,2]",
    "model.drop_path_rate=0.3",
    "ema=warm",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=6",
    "trainer.log_every_n_steps=1",
    "+trainer.val_check_interval=0.5",
    "schedule.warmup_epochs=1",
    "checkpoint.every_n_updates=5",
)
SAME = ("state_dict", "ema", "ema_num_updates", "optimizer_states", "lr_schedulers", "epoch", "global_step", RUN_STATE_KEY)
"""Keys of a checkpoint that must be the same."""


POINTS: dict[str, tuple[Any, str, int]] = {
    "within an evaluation": (Engine, "validation_step", 30),
    "before a checkpoint is written": (checkpoint_io, "_save", 15),
    "between writing and renaming a checkpoint": (checkpoint_io, "keep", 10),
    "between renaming a checkpoint and the sync of its folder": (checkpoint_io, "sync_folder", 15),
}
"""Moment -> the function before which the first process is killed, and up to how many calls of it are awaited."""


@dataclass(frozen=True)
class Call:
    """Is a moment of a run: before the n-th call of a function."""

    point: str
    number: int


@dataclass
class Report:
    """Counts what happened."""

    kills: int = 0
    starts: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    """Where the run was when it was killed: a point, or, after a kill at a time, what its directory contained."""
    differences: list[str] = field(default_factory=list)


def survive(kills: int, processes: int, seed: int, overrides: Sequence[str], folder: Path) -> Report:
    """Trains without kills, then with kills, and compares.

    Args:
        kills: number of kills; the run is repeated until there were that many.
        processes: processes of the run.
        seed: of the moments.
        overrides: of train.py.
        folder: an empty folder for all files.
    """
    report, chance = Report(), random.Random(seed)
    words = [*OVERRIDES, *overrides]
    if processes > 1:
        words += ["trainer=ddp", f"trainer.devices={processes}"]
    started_at = time.monotonic()
    reference_words = [*words, "data.num_workers=0", "name=reference", f"out={folder}"]
    code = _start(reference_words, folder / "reference.log", None)
    if code != 0:
        raise SystemExit(f"the run without kills ended with {code}: {(folder / 'reference.log').read_text()[-2000:]}")
    seconds = time.monotonic() - started_at
    reference = next((folder / "reference").iterdir())
    number = 0
    while report.kills < kills and not report.differences:
        number += 1
        name = f"killed_{number}"
        arguments = [*words, f"data.num_workers={number % 2}", f"name={name}", f"out={folder}", "resume=auto"]
        code = -1
        while code != 0:
            moment = _random_moment(chance, seconds) if report.kills < kills else None
            report.starts += 1
            code = _start(arguments, folder / f"{name}.log", moment)
            if code == -signal.SIGKILL:
                report.kills += 1
                report.moments[moment.point if isinstance(moment, Call) else _state_of(folder / name)] += 1
            elif code != 0:
                report.differences.append(f"exit code {code}: {(folder / f'{name}.log').read_text()[-1500:]}")
                break
        if code == 0:
            report.differences += differences(reference, _finished(folder / name))
            shutil.rmtree(folder / name)
    return report


def _random_moment(chance: random.Random, seconds: float) -> float | Call:
    if chance.random() < 0.5:
        return chance.uniform(0, seconds)
    point = chance.choice(list(POINTS))
    return Call(point, chance.randint(1, POINTS[point][2]))


def _kill_at(call: Call) -> None:
    """Has this process and those that it starts killed before a call."""
    owner, name, _ = POINTS[call.point]
    function, left = getattr(owner, name), call.number

    def counted(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.killpg(0, signal.SIGKILL)
        return function(*arguments)

    setattr(owner, name, counted)


def _start(arguments: list[str], log: Path, moment: float | Call | None) -> int:
    """Trains in a fork of this process, which has imported everything; returns its exit code, negative after a signal.

    Args:
        arguments: of train.py.
        log: what is printed.
        moment: seconds after which the run is killed, or the call before which it is. If None, it is not killed.
    """
    child = os.fork()
    if child == 0:
        os.setsid()  # Further processes of the run belong to the same group.
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = [str(ROOT / "train.py"), *arguments]
        code = 1
        try:
            if isinstance(moment, Call):
                _kill_at(moment)
            code = train_main("train", arguments)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if isinstance(moment, float):
        until = time.monotonic() + moment
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:  # It has not made its own group yet.
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _state_of(runs: Path) -> str:
    run_dir = newest_unfinished(runs)
    if run_dir is None:
        return "before the first checkpoint"
    return "while a checkpoint was written" if list(run_dir.glob("checkpoints/*.unfinished")) else "at other times"


def _finished(runs: Path) -> Path:
    return next(path for path in find_records(runs) if is_finished(path))


def differences(reference: Path, resumed: Path) -> list[str]:
    """Returns what differs between two finished run directories; [] if nothing does."""
    found = []
    if (reference / "metrics.csv").read_bytes() != (resumed / "metrics.csv").read_bytes():
        found.append("metrics.csv")
    for name in ("last.ckpt", "best.ckpt"):
        one, two = (
            torch.load(run / "checkpoints" / name, map_location="cpu", weights_only=True) for run in (reference, resumed)
        )
        found += [f"{name}: {key}" for key in SAME for key in _differing(key, one.get(key), two.get(key))]
    return found


def _differing(name: str, one: Any, two: Any) -> list[str]:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        same = one.dtype == two.dtype and torch.equal(one, two)
        return [] if same else [name]
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return [inner for key in one for inner in _differing(f"{name}.{key}", one[key], two[key])]
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        return [inner for i, pair in enumerate(zip(one, two, strict=True)) for inner in _differing(f"{name}.{i}", *pair)]
    return [] if one == two else [name]


def main() -> int:
    """Prints the number of kills, and what differs; returns 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of kills (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="processes of the run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", help="of train.py")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = survive(arguments.kills, arguments.processes, arguments.seed, arguments.overrides, Path(folder))
    print(f"{report.kills} kills in {report.starts} starts on {arguments.processes} process(es): {dict(report.moments)}")
    print("different: " + "\n".join(report.differences) if report.differences else "the same to the bit")
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main())
