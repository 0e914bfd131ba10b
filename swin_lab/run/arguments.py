"""How this process was started, and the commands that start others."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swin_lab.errors import UserError
from swin_lab.interruption import Interruption
from swin_lab.run.command_line import CommandLine

Job = Literal["train", "eval"]
Launcher = Literal["script", "swin-lab"]

MODULE = "swin_lab.__main__"
"""Name of the module that `python -m swin_lab` runs."""

RUN_DIR = "SWIN_LAB_RUN_DIR"
"""Environment variable that gives the run directory to the other processes of a run."""

RANKS = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
"""Environment variables with which Lightning, torchrun or SLURM number the processes of a run."""


@dataclass(frozen=True)
class Invocation:
    """Describes the command that started a run, for its results and its hints."""

    overrides: tuple[str, ...] = ()
    eval_command: str = "python eval.py"
    """Command that evaluates a checkpoint, started in the same way."""
    train_command: tuple[str, ...] = ("python", "train.py")
    """Words of the command that trains, started in the same way."""
    interruption: Interruption | None = None
    """Takes note of signals from the start of the process on. If None, the job handles them itself."""


@dataclass(frozen=True)
class Start:
    """How a job was started."""

    job: Job
    line: CommandLine
    launcher: Launcher
    eval_command: str
    """Command that evaluates a checkpoint with the same launcher and configuration directory."""
    train_command: tuple[str, ...]
    """Words of the command that trains, likewise."""


def relaunch_command() -> list[str]:
    """Returns the command that starts this program again: a script, a console script, or a module after `python -m`."""
    spec, program = sys.modules["__main__"].__spec__, os.path.abspath(sys.argv[0])
    return [sys.executable, program] if spec is None or spec.origin != program else [sys.executable, "-m", spec.name]


def command_of(job: Job, launcher: Launcher) -> str:
    """Returns the command that starts a job, in the way in which this process was started."""
    if launcher == "script":
        script = Path(sys.argv[0])
        return f"python {script.with_name(f'{job}.py') if script.name in ('train.py', 'eval.py') else f'{job}.py'}"
    return shlex.join([*program_of(launcher), job])


def program_of(launcher: Launcher) -> list[str]:
    """Returns the words that start `swin-lab` in the Python environment in which this process was started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    is_module = launcher == "script" or (spec is not None and spec.name == MODULE)
    return ["python", "-m", "swin_lab"] if is_module else ["swin-lab"]


def as_started(words: Sequence[str]) -> str:
    """Returns the text of a command for processes that are started as this one was.

    The options of torchrun and srun, which this process does not know, are written as `...`.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return f"torchrun ... {shlex.join(words[1:] if words[0].startswith('python') else words)}"
    return f"{'srun ... ' if os.environ.get('SLURM_NTASKS', '1') != '1' else ''}{shlex.join(words)}"


def local_rank() -> int:
    """Returns the number of this process among those of a run on this machine, which Lightning, torchrun or SLURM sets.

    Raises:
        UserError: the environment variable is not a number.
    """
    for name in ("LOCAL_RANK", "SLURM_PROCID"):
        value = os.environ.get(name)
        if value:
            return _non_negative(name, value)
    return 0


def check_environment() -> None:
    """Checks the environment variables that describe the processes of a run.

    Raises:
        UserError: one is not a number, or a rank is left over from another command: this process would wait for others in vain.
    """
    for name in RANKS:
        value = os.environ.get(name)
        if value:
            _non_negative(name, value)
    port = os.environ.get("MASTER_PORT")
    if port and not 0 < _non_negative("MASTER_PORT", port) < 2**16:
        raise UserError(f"the environment variable MASTER_PORT={port} must be a port from 1 to 65535; set another, or unset it")
    if os.environ.get("LOCAL_RANK") and not os.environ.get("MASTER_ADDR"):
        raise UserError(
            f"the environment variable LOCAL_RANK={os.environ['LOCAL_RANK']} says that this process belongs to a run on "
            "several devices, and MASTER_ADDR, the address of its first process, is missing\n"
            "Unset LOCAL_RANK, or start the processes with torchrun, SLURM or trainer.devices=N"
        )


def _non_negative(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise UserError(f"the environment variable {name}={value} must be a non-negative integer; unset it")
    return int(value)
