"""One directory per run, made once, known to every process of the run."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import rich
from lightning import Trainer
from omegaconf import OmegaConf

from swin_lab.errors import UserError
from swin_lab.run.entry import RUN_DIR

log = logging.getLogger("swin_lab")


@contextmanager
def run_directory(trainer: Trainer, wanted: Path, config: dict[str, Any], overrides: list[str]) -> Iterator[Path]:
    """Makes the directory in the first process, tells the others, and logs into it.

    Args:
        trainer: knows how many processes there are and who starts them.
        wanted: the directory; a number is appended if it exists.
        config: resolved configuration, written as config.yaml.
        overrides: what was typed, written as overrides.txt.

    Raises:
        UserError: the directory cannot be made or written.
    """
    path = _agreed_path(trainer, wanted, config, overrides)
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


def timed(folder: Path, prefix: str = "") -> Path:
    """A name for a directory made now."""
    return folder / f"{prefix}{datetime.now():%Y-%m-%d_%H-%M-%S}"


def run_folder(out: str, name: str) -> Path:
    """The folder of all runs of a name; raises UserError for a name that is no plain folder name."""
    if not re.fullmatch(r"[\w.\-]+", str(name)) or str(name).startswith("."):
        raise UserError(f"name={name} cannot be a folder; use letters, digits, '_', '-' and '.'")
    return Path(str(out)).expanduser().absolute() / str(name)


def start_console(quiet: bool) -> None:
    """Sends this project's messages to the terminal, above a progress bar where there is one; silences Lightning's advice."""
    log.setLevel(logging.ERROR if quiet else logging.INFO)
    log.propagate = False
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


def _agreed_path(trainer: Trainer, wanted: Path, config: dict[str, Any], overrides: list[str]) -> Path:
    if RUN_DIR in os.environ and not trainer.is_global_zero:  # started by the first process
        return Path(os.environ[RUN_DIR])
    others_exist = trainer.world_size > 1 and _started_from_outside(trainer)
    if others_exist:  # by torchrun or SLURM: they are waiting at the same line
        trainer.strategy.setup_environment()
    path = _make(wanted, config, overrides) if trainer.is_global_zero else wanted
    return trainer.strategy.broadcast(path) if others_exist else path


def _started_from_outside(trainer: Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is not None and environment.creates_processes_externally


def _make(wanted: Path, config: dict[str, Any], overrides: list[str]) -> Path:
    path = wanted
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
    """Makes the directory, or one with a number behind its name: whoever makes it first has it to itself."""
    for number in count(1):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        try:
            path.mkdir()
            break
        except FileExistsError:
            continue
    return path
