"""Files of checkpoints that are whole at every moment."""

import errno
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
"""The newest checkpoint of a run, and the one before it."""
UNFINISHED = ".unfinished"
"""Ending of a file that is being written."""


class WholeFileIO(TorchCheckpointIO):
    """Writes a checkpoint to a file beside it, on the same file system, and renames that when it is whole and on the disk.

    Lightning's own class writes into TMPDIR and copies the file from there over the old one, so that a killed process or a full
    disk can leave neither of them. The last checkpoint of a run is kept under the name of the previous one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a file.

        Raises:
            OSError: the disk is full or cannot be written; the old file is still there.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)  # Someone may have removed the run directory.
        unfinished = path.with_name(path.name + UNFINISHED)
        try:
            with unfinished.open("wb") as file:
                _save(checkpoint, file, unfinished)
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST and path.is_file():
                keep(path, path.with_name(PREVIOUS))
            unfinished.replace(path)
        except BaseException as error:
            unfinished.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename is None:  # Closing the file has failed.
                raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(unfinished)) from error
            raise
        sync_folder(path.parent)


class BackgroundIO(AsyncCheckpointIO):
    """Copies the tensors of a checkpoint to the host and writes it as `WholeFileIO` does, while the training goes on."""

    def __init__(self) -> None:
        super().__init__(WholeFileIO())

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Copies the tensors and returns; Lightning's class would leave the copies in the memory of a GPU."""
        host = apply_to_collection(checkpoint, torch.Tensor, lambda tensor: tensor.detach().cpu())
        super().save_checkpoint(host, path, storage_options)

    def check(self) -> None:
        """Raises the error of an earlier save; Lightning's class would raise it at the next one, or at the end of the run."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Waits until every checkpoint is written; raises the error of a save that failed."""
        self.teardown()


def keep(path: Path, name: Path) -> None:
    """Gives a file a second name; another file of that name is replaced.

    Where the file system has no hard links, the first name is gone after it, until the next file takes it.
    """
    link = name.with_name(name.name + UNFINISHED)
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        path.replace(name)
    else:
        link.replace(name)


def _save(checkpoint: dict[str, Any], file: Any, path: Path) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's writer hides what the file has raised.
        try:
            file.write(b"0" * 2**20)
            file.flush()
        except OSError as reason:
            raise OSError(reason.errno, os.strerror(reason.errno or errno.EIO), str(path)) from error
        raise
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(path)) from error


def sync_folder(folder: Path) -> None:
    """Has the names of the files in a folder written to the disk, where the operating system can do so."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
