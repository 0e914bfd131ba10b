"""Settings of a sweep, and what is refused before it starts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from swin_lab.errors import UserError
from swin_lab.run.command_line import CommandLine
from swin_lab.run.instantiate import build_dataclass
from swin_lab.validation import PositiveInt, Text, check_fields

OF_SWEEPS = ("sweep", "search")
"""Keys that only the command with -m reads; its jobs do not get them."""
OF_HYDRA = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper", "hydra.sweep", "hydra.mode")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Contains where and how the jobs of a sweep run, as conf/train.yaml explains it."""

    dir: Text | None = None
    jobs: PositiveInt | None = None
    executor: Literal["local", "slurm", "submitit_local"] = "local"
    timeout_min: PositiveInt = 1440
    slurm: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "sweep.")
        if self.slurm is not None and self.executor != "slurm":
            raise UserError(f"sweep.slurm has no effect with sweep.executor={self.executor}; set sweep.executor=slurm")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Contains the settings of a search by Optuna, as conf/search/optuna.yaml explains them."""

    trials: PositiveInt
    sampler: Literal["tpe", "random"]
    pruner: Literal["median", "none"]
    startup_trials: PositiveInt
    warmup_epochs: PositiveInt

    def __post_init__(self) -> None:
        check_fields(self, "search.")


def read_settings(config: Mapping[str, Any]) -> tuple[SweepConfig, SearchConfig | None]:
    """Returns the settings of a composed configuration; those of a search are None for a grid.

    Raises:
        UserError: a key or value is invalid, or a package is missing.
    """
    sweep = build_dataclass("sweep", SweepConfig, config["sweep"])
    search = build_dataclass("search", SearchConfig, config["search"]) if config.get("search") else None
    for package, setting in (
        ("optuna", search and "search=optuna"),
        ("submitit", sweep.executor != "local" and "sweep.executor"),
    ):
        if setting and find_spec(package) is None:
            raise UserError(f"{setting} needs the package {package}; install it with: pip install 'swin-lab[sweeps]'")
    return sweep, search


def check_single(overrides: Sequence[str], config: Mapping[str, Any]) -> None:
    """Raises UserError if overrides of a single run, which is no sweep, set what only a sweep reads."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.startswith(OF_HYDRA):
            raise UserError(f"{override} is not used here; -m sweeps, and sweep.executor says where its jobs run")
        if key.partition(".")[0] in OF_SWEEPS and not override.startswith("~"):
            read_settings(config)
            if override != "search=grid":
                raise UserError(f"{override} is a setting of sweeps; add -m, or leave it out")


def check_sweep(line: CommandLine) -> None:
    """Raises UserError for a command line with -m that cannot be that of a sweep."""
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UserError("a sweep is started once, without torchrun: each of its jobs starts its own processes")
    for flag in ("--config-name", "--config-path", "--package"):
        if line.has(flag):
            raise UserError(f"{flag} cannot be used with -m; choose configuration files with --config-dir and experiment=NAME")
    for override in line.overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.startswith(OF_HYDRA):
            raise UserError(
                f"{override} is not used: Hydra's launchers run a job inside a process of theirs, from which it cannot start "
                "one process per device.\nSet sweep.executor=local, slurm or submitit_local, and search=grid or optuna"
            )
        if key in ("resume", "resume_with"):
            raise UserError(f"{override}: a sweep resumes its unfinished jobs by itself; leave {key} out")
