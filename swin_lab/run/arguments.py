"""Reads Hydra's flags from a command line, and finds out how this process was started."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from swin_lab.errors import UserError, did_you_mean

Job = Literal["train", "eval"]
Launcher = Literal["script", "swin-lab"]

MODULE = "swin_lab.__main__"
"""Name of the module that `python -m swin_lab` runs."""

RUN_DIR = "SWIN_LAB_RUN_DIR"
"""Environment variable that gives the run directory to the other processes of a run."""

CONFIG_DIR = ("--config-dir", "-cd")
WITH_VALUES = (*CONFIG_DIR, "--config-name", "-cn", "--config-path", "-cp")
"""Flags that every run of a sweep needs, too."""
FLAGS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--shell-completion"),
    *("--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info"),
)
"""Hydra's long flags; any unambiguous beginning of one is accepted as well."""


@dataclass(frozen=True)
class Invocation:
    """Describes the command that started a run, for its results and its hints."""

    overrides: tuple[str, ...] = ()
    eval_command: str = "python eval.py"
    """Command that evaluates a checkpoint, started in the same way."""


def check_flags(arguments: Sequence[str]) -> None:
    """Raises UserError for a long flag that Hydra does not have."""
    for part in arguments:
        flag = part.partition("=")[0]
        if flag.startswith("--") and not any(known.startswith(flag) for known in FLAGS):
            raise UserError(f"unknown option {flag}{did_you_mean(flag, FLAGS)}")


def flags_and_values(arguments: Sequence[str], flags: Sequence[str] = WITH_VALUES) -> list[str]:
    """Returns these flags and their values as they were given: "--flag", "value" or "--flag=value"."""
    found = [part for flag, value in pairwise([*arguments, ""]) if flag in flags for part in (flag, value)]
    return found + [part for part in arguments if part.startswith(tuple(f"{flag}=" for flag in flags))]


def config_dirs(arguments: Sequence[str]) -> list[Path]:
    """Returns the absolute directories of `--config-dir`."""
    given = flags_and_values(arguments, CONFIG_DIR)
    values = [part.partition("=")[2] if part.startswith("-") else part for part in given if part not in CONFIG_DIR]
    return [Path(value).absolute() for value in values if value]


def overrides_in(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments that are neither flags nor values of flags."""
    values_of_flags = set(flags_and_values(arguments))
    return [part for part in arguments if not part.startswith("-") and part not in values_of_flags]


def search_path(config_directories: Sequence[Path]) -> list[str]:
    """Returns the override by which Hydra's compose function finds configuration files in further directories."""
    return [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in config_directories)}]"] if config_directories else []


def relaunch_command() -> list[str]:
    """Returns the command that starts this program again: a script, a console script, or a module after `python -m`."""
    spec = sys.modules["__main__"].__spec__
    return [sys.executable, os.path.abspath(sys.argv[0])] if spec is None else [sys.executable, "-m", spec.name]


def command_of(job: Job, launcher: Launcher) -> str:
    """Returns the command that starts a job, in the way in which this process was started."""
    if launcher == "script":
        script = Path(sys.argv[0])
        return f"python {script.with_name(f'{job}.py') if script.name in ('train.py', 'eval.py') else f'{job}.py'}"
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"{'python -m swin_lab' if spec is not None and spec.name == MODULE else 'swin-lab'} {job}"
