"""One directory per run, created once and known to every process of the run."""

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from shutil import copyfile
from typing import Any

import rich
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from swin_lab.errors import UserError
from swin_lab.record import LOCK, RESULTS, is_finished
from swin_lab.run.arguments import RUN_DIR, local_rank
from swin_lab.run.logs import Console, LogFile
from swin_lab.run.watch import Watch
from swin_lab.training.checkpoint_io import UNFINISHED

log = logging.getLogger("swin_lab")

MIN_WIDTH = 40


@contextmanager
def run_directory(
    watch: Watch, wanted: Path, config: dict[str, Any], overrides: Sequence[str], *, resumes: bool = False
) -> Iterator[Path]:
    """Creates the directory in the first process, passes its path to the others, and logs into it.

    Args:
        watch: knows the processes of the run.
        wanted: path of the directory; a number is appended if it exists.
        config: resolved configuration, written as config.yaml.
        overrides: the given overrides, written as overrides.txt.
        resumes: whether the directory is that of an earlier run, which goes on in it.

    Raises:
        UserError: the directory cannot be created or written, or another process trains in it.
    """
    with ExitStack() as held:
        path = _common_path(watch, lambda: _open(wanted, config, overrides, resumes, held))
        with _logging_into(path, is_first=watch.rank == 0):
            yield path


@contextmanager
def _logging_into(path: Path, *, is_first: bool) -> Iterator[None]:
    """Writes the log of the first process to run.log, and names the directory to the processes that it starts."""
    handler = None
    if is_first:
        os.environ[RUN_DIR] = str(path)
        handler = LogFile(path)
        log.addHandler(handler)
    try:
        yield
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
    if not any(isinstance(handler, Console) for handler in log.handlers):
        log.addHandler(Console())
    for name in ("lightning.pytorch", "lightning.fabric", "lightning", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores for float32 matrix multiplication available.*")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")


def _common_path(watch: Watch, open_directory: Callable[[], Path]) -> Path:
    if RUN_DIR in os.environ and watch.rank > 0:  # The first process has started this one.
        return Path(os.environ[RUN_DIR])
    return Path(watch.shared("directory", lambda: str(open_directory())))


def _open(wanted: Path, config: dict[str, Any], overrides: Sequence[str], resumes: bool, held: ExitStack) -> Path:
    """Creates the directory, or enters that of an earlier run, locks it, and writes the configuration into it."""
    if wanted.exists() and not wanted.is_dir():
        raise UserError(f"out={wanted} is a file; choose a folder, which is created if it does not exist")
    path = wanted
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = wanted if resumes else _first_free(wanted)
        held.enter_context(_locked(path))
        if resumes:
            _clear(path)
            config = config | {"resume": str(path)}  # Further processes read this file.
        write_settings(path, config, overrides)
    except OSError as error:
        raise UserError(
            f"cannot write the run directory {path}: {error.strerror or error}; choose another with out=FOLDER"
        ) from error
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps other commands from running in a directory; the lock ends with this process, however it ends."""
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another process trains in {path}; wait for its end, or stop it, before you resume the run") from error
    try:
        yield
    finally:
        lock.release()


def _clear(path: Path) -> None:
    """Removes what an interrupted process has left, and keeps a copy of the results of a finished run."""
    for file in path.glob(f"checkpoints/*{UNFINISHED}"):
        file.unlink(missing_ok=True)
    if is_finished(path):
        number = next(n for n in count(1) if not (path / f"results_{n}.json").exists())
        copyfile(path / RESULTS, path / f"results_{number}.json")


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that it is never seen in parts: beside it first, then by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)  # Someone may have removed the run directory.
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_text(text)
    unfinished.replace(path)


def write_settings(path: Path, config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Writes config.yaml and overrides.txt into a run directory."""
    write_whole(path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    write_whole(path / "overrides.txt", "".join(f"{override}\n" for override in overrides))


def restore_settings(path: Path, config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Writes them if they are missing, because someone has removed the directory of a run that goes on."""
    if not (path / "config.yaml").is_file():
        write_settings(path, config, overrides)


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
