"""Failures of the machine during a run (workers, memory, files) as messages that a user can act on."""

import errno
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from swin_lab.data.loading import LostWorkerError
from swin_lab.errors import UserError

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
"""Error numbers of the system for a file or a disk that cannot be written."""
NO_FILES = (errno.EMFILE, errno.ENFILE)

SHARED_MEMORY = re.compile(r"signal: Bus error|unable to (open|allocate|write to|mmap|resize).*(shared memory|/torch_)")
OPEN_FILES = re.compile(r"Too many open files|received 0 items of ancdata")
NO_MEMORY = re.compile(r"(can't|cannot) allocate memory|not enough memory|Cannot allocate memory", re.IGNORECASE)
LOST_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\) (is killed by signal: ([\w ]+)|exited unexpectedly)")
"""What torch says when the process of a loader worker has ended: the process, and the signal if it knows that."""
OF_WORKER = re.compile(r"in DataLoader worker process (\d+)")

KILLED = "; most likely the system had no memory left and killed it"
FEWER_WORKERS = "Lower data.num_workers (0 loads in the main process)"


def explain_failure(error: BaseException) -> str | None:
    """Returns what has failed and what to do, in two lines, for an error of the machine; None for any other error."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"the device is out of memory: {text.splitlines()[0]}\n"
            "Lower max_device_batch, or set max_device_batch=auto or model.activation_checkpointing=true"
        )
    if not isinstance(error, MemoryError | RuntimeError | OSError):
        return None
    worker = f" in loader worker {found[1]}" if (found := OF_WORKER.search(text)) else ""
    if SHARED_MEMORY.search(text):
        return (
            f"shared memory (/dev/shm) is full{worker}: workers pass batches through it\n"
            f"Give the container more (docker run --shm-size=8g, or --ipc=host). {FEWER_WORKERS}"
        )
    if OPEN_FILES.search(text) or (isinstance(error, OSError) and error.errno in NO_FILES):
        return f"too many open files{worker}: raise the limit of this shell, for example with ulimit -n 65536\n{FEWER_WORKERS}"
    if isinstance(error, LostWorkerError):
        return f"a loader worker has ended{KILLED}\n{FEWER_WORKERS}, or free memory"
    if lost := LOST_WORKER.search(text):
        how = f"was ended by the signal {lost[3].strip()}" if lost[3] else "has ended"
        likely = KILLED if lost[3] in (None, "Killed") else ""
        return f"a loader worker (process {lost[1].strip()}) {how}{likely}\n{FEWER_WORKERS}, or free memory"
    if isinstance(error, MemoryError) or NO_MEMORY.search(text):
        return f"no memory is left{worker}\n{FEWER_WORKERS}, data.cache_mib or max_device_batch, or free memory"
    return None


@contextmanager
def explained_failures() -> Iterator[None]:
    """Turns errors of the machine into messages.

    Raises:
        UserError: workers, memory or files have failed.
    """
    try:
        yield
    except UserError:
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        message = explain_failure(error)
        if message is None:
            raise
        raise UserError(message) from error


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Prints no traceback for a thread that cannot write its file: TensorBoard's raises its error again in the main thread."""
    before = threading.excepthook

    def report(failure: Any) -> None:
        if not isinstance(failure.exc_value, OSError):
            before(failure)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before
