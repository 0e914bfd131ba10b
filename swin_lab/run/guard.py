"""What can go wrong on the machine while a run goes on, turned into a message its user can act on."""

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
"""In the run directory: the message with which one process of several has ended."""


@contextmanager
def guarded(run_dir: Path, processes: int) -> Iterator[None]:
    """Around everything that happens once a run directory exists.

    Args:
        run_dir: the run directory.
        processes: how many this run has.

    Raises:
        UserError: the disk is full, the folder may not be written, the device's memory does not suffice, or Lightning finds
            that its settings contradict the data.
        KeyboardInterrupt: after Ctrl-C; says which checkpoint is left.
        SystemExit: another process of this run has ended with a message, which it has printed.
    """
    try:
        yield
        if torch.distributed.is_initialized():  # its threads must not outlive the interpreter
            torch.distributed.destroy_process_group()
    except SystemExit:  # how Lightning ends after Ctrl-C
        kept = run_dir / "checkpoints" / "last.ckpt"
        raise KeyboardInterrupt(f"the last checkpoint is {shorter(kept)}" if kept.is_file() else "") from None
    except UserError as error:
        if processes > 1:
            (run_dir / ERROR_FILE).write_text(f"{error}\n")
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device's memory is full: {str(error).splitlines()[0]}\n"
            "Lower max_device_batch, or set model.activation_checkpointing=true"
        ) from error
    except MisconfigurationException as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        kept_files = [shorter(file) for file in sorted(run_dir.glob("checkpoints/*.ckpt"))]
        raise UserError(
            f"cannot write to {error.filename or run_dir}: {error.strerror or error}\n"
            f"Free space or choose another folder with out=FOLDER; checkpoints so far: {', '.join(kept_files) or 'none'}"
        ) from error
    except RuntimeError:
        if processes > 1 and _another_rank_failed(run_dir):
            raise SystemExit(2) from None
        raise


def _another_rank_failed(run_dir: Path, patience_s: float = 10) -> bool:
    """Whether the error of this process is that another one has gone; that one may still be on its way to saying why."""
    until = monotonic() + patience_s
    while monotonic() < until:
        if (run_dir / ERROR_FILE).is_file():
            return True
        sleep(0.1)
    return False
