"""One directory per run, created once and known to every process of the run."""

import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import rich
from lightning import Trainer
from omegaconf import OmegaConf

from swin_lab.errors import UserError
from swin_lab.run.arguments import RUN_DIR, local_rank

log = logging.getLogger("swin_lab")

MIN_WIDTH = 40


@contextmanager
def run_directory(trainer: Trainer, wanted: Path, config: dict[str, Any], overrides: Sequence[str]) -> Iterator[Path]:
    """Creates the directory in the first process, passes its path to the others, and logs into it.

    Args:
        trainer: Lightning's Trainer, which knows the processes and what starts them.
        wanted: path of the directory; a number is appended if it exists.
        config: resolved configuration, written as config.yaml.
        overrides: the given overrides, written as overrides.txt.

    Raises:
        UserError: the directory cannot be created or written.
    """
    path = _common_path(trainer, wanted, config, overrides)
    handler = None
    if trainer.is_global_zero:
        os.environ[RUN_DIR] = str(path)
        handler = logging.FileHandler(path / "run.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
    try:
        yield path
    finally:
        if handler is not None:
            os.environ.pop(RUN_DIR, None)
            log.removeHandler(handler)
            handler.close()


def timestamped(folder: Path, prefix: str = "") -> Path:
    """Returns the path of a directory in a folder that is named after the current time."""
    return folder / f"{prefix}{datetime.now():%Y-%m-%d_%H-%M-%S}"


def run_folder(out: str, name: str) -> Path:
    """Returns the folder of all runs of a name; that of OWNER/NAME, as the hub names models, is OWNER_NAME.

    Raises:
        UserError: the name cannot be that of a folder.
    """
    if not re.fullmatch(r"\w[\w.\-]*(/\w[\w.\-]*)?", name):
        raise UserError(f"name={name} cannot be the name of a folder; use letters, digits, '_', '-' and '.', or OWNER/NAME")
    return Path(out).expanduser().absolute() / name.replace("/", "_")


def is_other_process() -> bool:
    """Returns whether this is a further process of a run on several devices, which prints nothing but errors."""
    return local_rank() > 0


def start_console(quiet: bool) -> None:
    """Prints swin_lab's log messages, above a progress bar where there is one, and silences Lightning's advice."""
    log.setLevel(logging.ERROR if quiet else logging.INFO)
    log.propagate = False
    if rich.get_console().width < MIN_WIDTH:  # A terminal, or COLUMNS, can have a width of 0, in which nothing is printed.
        rich.get_console().width = MIN_WIDTH
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        log.addHandler(_Console())
    for name in ("lightning.pytorch", "lightning.fabric", "lightning", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        rich.get_console().print(prefix + record.getMessage(), markup=False, highlight=False, soft_wrap=True)


def _common_path(trainer: Trainer, wanted: Path, config: dict[str, Any], overrides: Sequence[str]) -> Path:
    if RUN_DIR in os.environ and not trainer.is_global_zero:  # The first process has started this one.
        return Path(os.environ[RUN_DIR])
    others_exist = trainer.world_size > 1 and _started_from_outside(trainer)
    if others_exist:  # torchrun or SLURM has started all processes; they wait for the broadcast below.
        trainer.strategy.setup_environment()
    path = _create(wanted, config, overrides) if trainer.is_global_zero else wanted
    return trainer.strategy.broadcast(path) if others_exist else path


def _started_from_outside(trainer: Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is not None and environment.creates_processes_externally


def _create(wanted: Path, config: dict[str, Any], overrides: Sequence[str]) -> Path:
    path = wanted
    if wanted.exists() and not wanted.is_dir():
        raise UserError(f"out={wanted} is a file; choose a folder, which is created if it does not exist")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = _first_free(wanted)
        OmegaConf.save(OmegaConf.create(config), path / "config.yaml")
        (path / "overrides.txt").write_text("".join(f"{override}\n" for override in overrides))
    except OSError as error:
        raise UserError(
            f"cannot write the run directory {path}: {error.strerror or error}; choose another with out=FOLDER"
        ) from error
    return path


def _first_free(wanted: Path) -> Path:
    """Creates the directory, or one with a number appended to its name, if another process has created it."""
    for number in count(1):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        try:
            path.mkdir()
            break
        except FileExistsError:
            continue
    return path
