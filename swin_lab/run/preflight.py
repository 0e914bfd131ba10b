"""What the loader workers of a run need of the machine, and the checks of loading before the first update."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from swin_lab.data.datamodule import ImageData
from swin_lab.errors import UserError
from swin_lab.run.training import Training

SHARED_MEMORY = Path("/dev/shm")
"""File system through which workers pass their batches on Linux; Docker gives a container 64 MB of it."""
PREFETCHED = 2
"""Batches that torch has every worker load in advance."""
HELD = 4
"""Batches that have left the workers and are still in shared memory; 3 were measured, and one is a reserve."""
TENSORS = 3
"""Tensors of a batch, of which each is a file in shared memory and an open file: images, labels, indices."""
PAGE = 4096
FILES_OF_A_WORKER = 10
"""Pipes, locks and the process handle of a worker in the main process."""
FILES_OF_A_RUN = 64
"""Files that torch, its libraries and the loggers have open; 20 were counted."""


@dataclass(frozen=True)
class Needs:
    """Contains what the loaders of all processes on this machine need."""

    workers: int
    """Loader workers of one process."""
    shared_bytes: int
    """Bytes of shared memory of all processes."""
    open_files: int
    """Open files of one process."""


class EvaluationCheck(Callback):
    """Has every process load the first batch of an evaluation before the first update; Lightning loads that of the training."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data_module = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data_module, ImageData)
        if trainer.limit_val_batches:
            data_module.try_evaluation()


def loader_needs(workers: Sequence[int], batch_bytes: Sequence[int], processes: int, *, at_once: bool) -> Needs:
    """Estimates what the loaders of training and evaluation need, whose workers remain between uses.

    Args:
        workers: number of workers of each loader.
        batch_bytes: size of a batch of each loader.
        processes: number of processes on this machine.
        at_once: whether all loaders hold batches at once, as they do if there are evaluations within an epoch.
    """
    held = [PREFETCHED * number + HELD if number else 0 for number in workers]
    shared = [count * (size + TENSORS * PAGE) for count, size in zip(held, batch_bytes, strict=True)]
    files = FILES_OF_A_RUN + TENSORS * sum(held) + FILES_OF_A_WORKER * sum(workers)
    return Needs(max(workers), processes * (sum(shared) if at_once else max(shared)), files)


def needs_of(training: Training) -> Needs:
    """Estimates what the loaders of a run need: pixels of workers are bytes if the device normalises them, else floats."""
    data_module, size, trainer = training.data_module, training.preprocessing, training.config.trainer
    processes = training.launch.devices_per_node
    number = 0 if data_module.loading.cache == "device" else data_module.workers_on(processes)
    of_training = 0 if data_module.loading.loader == "dali" else number  # DALI has threads.
    pixels = size.channels * size.img_size[0] * size.img_size[1]
    sizes = [
        training.batching.device_batch * pixels * (1 if transform is not None and transform.device is not None else 4)
        for transform in (data_module.train_transform, data_module.eval_transform)
    ]
    return loader_needs([of_training, number], sizes, processes, at_once="val_check_interval" in trainer)


def check_needs(needs: Needs) -> None:
    """Compares what the loaders need with what there is; a worker without shared memory would be killed, or wait for ever.

    Raises:
        UserError: there is too little shared memory, or too few files may be open.
    """
    free = free_shared_memory()
    if needs.workers and free is not None and free < needs.shared_bytes:
        raise UserError(
            f"the {needs.workers} loader workers need about {mb(needs.shared_bytes)} of shared memory, and {SHARED_MEMORY} has "
            f"{mb(free)} free\n{advice_on_shared_memory(needs, free)}"
        )
    limit = open_file_limit()
    if limit is not None and limit < needs.open_files:
        raise UserError(
            f"the run needs about {needs.open_files} open files, and the limit of this shell is {limit}\n"
            f"Raise it with ulimit -n {max(4096, needs.open_files)}, or lower data.num_workers={needs.workers}"
        )


def advice_on_shared_memory(needs: Needs, free: int) -> str:
    """Returns how to get more shared memory, or with how many workers the free one is enough."""
    gigabytes = -(-2 * needs.shared_bytes // 10**9)
    possible = int(free / needs.shared_bytes * needs.workers * 0.8) if needs.shared_bytes else 0
    return (
        f"Give the container more (docker run --shm-size={gigabytes}g, or --ipc=host), or set data.num_workers={possible}"
        + (" (0 loads in the main process)" if possible else "")
    )


def free_shared_memory() -> int | None:
    """Returns the free bytes of shared memory; None on a system that has no such file system."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def open_file_limit() -> int | None:
    """Returns how many files a process may have open; None if there is no limit, or on Windows."""
    try:
        import resource
    except ImportError:
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def mb(size: int) -> str:
    """Returns a size in MB, or in GB from 1000 MB on."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{ceil(size / 1e6)} MB"
