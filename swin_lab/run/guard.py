"""Conversion of failures during a run (full disk, out of memory) into messages that a user can act on."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from swin_lab.data.loading import end_workers
from swin_lab.errors import UserError
from swin_lab.report import shorter
from swin_lab.run.arguments import as_started
from swin_lab.run.failures import CANNOT_WRITE, explain_failure, quiet_writers
from swin_lab.run.watch import Watch
from swin_lab.training.checkpoint_io import LAST, PREVIOUS, UNFINISHED
from swin_lab.weights.archive import check_archive

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Error numbers of the system that only writing has."""


@contextmanager
def guarded(run_dir: Path, watch: Watch, train_command: Sequence[str] = ()) -> Iterator[None]:
    """Wraps everything that happens once a run directory exists.

    Args:
        run_dir: the run directory.
        watch: watches the other processes of this run.
        train_command: words of the command that trains, which can continue the run. If empty, nothing can be continued.

    Raises:
        UserError: the disk is full, the folder cannot be written, memory, workers or open files of the machine have failed, or
            Lightning finds that its settings contradict the data.
        KeyboardInterrupt: after Ctrl-C; the message names the last checkpoint.
    """
    try:
        with quiet_writers():
            yield
        if torch.distributed.is_initialized():  # Its threads must end before the interpreter does.
            torch.distributed.destroy_process_group()
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):  # Rich raises it when the reader of a pipe has gone.
            raise
        # Lightning raises it after Ctrl-C.
        last = run_dir / "checkpoints" / "last.ckpt"
        raise KeyboardInterrupt(f"the last checkpoint is {shorter(last)}" if last.is_file() else "") from None
    except MisconfigurationException as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error
    except UserError as error:  # A figure could not be written.
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in FULL and (message := _full_disk(cause, run_dir)):
            raise UserError(message + _way_on(run_dir, train_command)) from cause
        raise
    except (OSError, RuntimeError, MemoryError) as error:
        end_workers()
        message = _full_disk(error, run_dir) if isinstance(error, OSError) else None
        if message := message or explain_failure(error):
            raise UserError(message + _way_on(run_dir, train_command)) from error
        if isinstance(error, RuntimeError):
            watch.blame_others()
        raise


def resume_command(train_command: Sequence[str], run_dir: Path) -> str:
    """Returns the command that continues a run, from the words of the command that trains and the run directory."""
    return as_started([*train_command, f"resume={shorter(run_dir)}"])


def _full_disk(error: OSError, run_dir: Path) -> str | None:
    """Returns what cannot be written, and what is there; None for an error of another kind."""
    if error.errno not in CANNOT_WRITE:
        return None
    file = str(error.filename or run_dir).removesuffix(UNFINISHED)
    whole = [shorter(file) for file in sorted(run_dir.glob("checkpoints/*.ckpt")) if _is_whole(file)]
    return (
        f"cannot write to {file}: {error.strerror or error}\n"
        f"Free space or choose another folder with out=FOLDER; checkpoints so far: {', '.join(whole) or 'none'}"
    )


def _is_whole(file: Path) -> bool:
    try:
        check_archive(file)
    except UserError:
        return False
    return True


def _way_on(run_dir: Path, train_command: Sequence[str]) -> str:
    """Returns the line with the command that continues the run, if there is a checkpoint."""
    if not train_command or not any((run_dir / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS)):
        return ""
    return f"\ncontinue with: {resume_command(train_command, run_dir)}"
