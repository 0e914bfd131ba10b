"""Conversion of failures during a run (full disk, out of memory) into messages that a user can act on."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from swin_lab.errors import UserError
from swin_lab.report import shorter
from swin_lab.run.watch import Watch

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


@contextmanager
def guarded(run_dir: Path, watch: Watch) -> Iterator[None]:
    """Wraps everything that happens once a run directory exists.

    Args:
        run_dir: the run directory.
        watch: watches the other processes of this run.

    Raises:
        UserError: the disk is full, the folder cannot be written, the device is out of memory, or Lightning finds that its
            settings contradict the data.
        KeyboardInterrupt: after Ctrl-C; the message names the last checkpoint.
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
        watch.blame_others()
        raise
