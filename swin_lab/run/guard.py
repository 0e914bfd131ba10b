"""Conversion of failures during a run (full disk, out of memory) into messages that a user can act on."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from swin_lab.errors import UserError
from swin_lab.report import shorter

CANNOT_WRITE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EIO,
}
ERROR_FILE = "error.txt"
"""File in the run directory with the error message of a process that has ended before the others."""


@contextmanager
def guarded(run_dir: Path, processes: int) -> Iterator[None]:
    """Wraps everything that happens once a run directory exists.

    Args:
        run_dir: the run directory.
        processes: number of processes of this run.

    Raises:
        UserError: the disk is full, the folder cannot be written, the device is out of memory, or Lightning finds that its
            settings contradict the data.
        KeyboardInterrupt: after Ctrl-C; the message names the last checkpoint.
        SystemExit: another process of this run has ended with a message, which it has printed.
    """
    try:
        yield
        if torch.distributed.is_initialized():  # Its threads must end before the interpreter does.
            torch.distributed.destroy_process_group()
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):  # Rich raises it when the reader of a pipe has gone.
            raise
        # Lightning raises it after Ctrl-C.
        last = run_dir / "checkpoints" / "last.ckpt"
        raise KeyboardInterrupt(f"the last checkpoint is {shorter(last)}" if last.is_file() else "") from None
    except UserError as error:
        if processes > 1:
            (run_dir / ERROR_FILE).write_text(f"{error}\n")
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device is out of memory: {str(error).splitlines()[0]}\n"
            "Lower max_device_batch, or set model.activation_checkpointing=true"
        ) from error
    except MisconfigurationException as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        checkpoints = [shorter(file) for file in sorted(run_dir.glob("checkpoints/*.ckpt"))]
        raise UserError(
            f"cannot write to {error.filename or run_dir}: {error.strerror or error}\n"
            f"Free space or choose another folder with out=FOLDER; checkpoints so far: {', '.join(checkpoints) or 'none'}"
        ) from error
    except RuntimeError:
        if processes > 1 and _another_rank_failed(run_dir):
            raise SystemExit(2) from None
        raise


def _another_rank_failed(run_dir: Path, timeout_s: float = 10) -> bool:
    """Returns whether another process has ended with a message, and waits a few seconds for it."""
    until = monotonic() + timeout_s
    while monotonic() < until:
        if (run_dir / ERROR_FILE).is_file():
            return True
        sleep(0.1)
    return False
