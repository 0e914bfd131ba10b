"""Files that are never seen in parts: they are written beside their place, synced, and renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swin_lab.errors import UserError
from swin_lab.training.checkpoint_io import UNFINISHED, sync_folder


@contextmanager
def written_whole(file: Path, unfinished: Path | None = None) -> Iterator[Path]:
    """A context that writes a file at the yielded path; the file gets its name at the end, and is removed after an error.

    Args:
        file: a new file, or one that is replaced.
        unfinished: where it is written, on the same file system. If None, beside it.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
    """
    unfinished = unfinished or file.with_name(f".{file.name}{UNFINISHED}")
    try:
        yield unfinished
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(f"{file} cannot be written: {error.strerror or os.strerror(error.errno or errno.EIO)}") from error
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
