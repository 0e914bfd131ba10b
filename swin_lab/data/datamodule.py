"""Pictures in batches: the LightningDataModule of every source."""

import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from time import perf_counter
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from lightning import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from swin_lab.data.pictures import UNREADABLE, ImageSource, Pictures, decoded
from swin_lab.data.sampling import Draw, EvaluationOrder, TrainingOrder
from swin_lab.errors import UserError, is_whole

log = logging.getLogger("swin_lab.data")

Transform = Callable[[Image.Image], Tensor]

MOST_WORKERS = 16
"""Per device, unless asked for."""


class Batch(NamedTuple):
    """What a worker hands over."""

    images: Tensor
    """(B, channels, height, width)."""
    labels: Tensor
    """(B,)."""
    numbers: Tensor
    """(B,), which picture of its set each is."""
    unreadable: list[str]
    """One line for each picture that should be here and could not be decoded."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How pictures are read, whatever their source; the keys that every `data=` group has besides the source's own."""

    mean: tuple[float, ...] | None = None
    """Per channel, of values from 0 to 1; None: measured on the training pictures."""
    std: tuple[float, ...] | None = None
    fit: str = "crop"
    """How an evaluation fits a picture to the network: crop (sides in proportion) or squash."""
    crop_pct: float = 1.0
    """Part of the resized side that the centre crop of an evaluation keeps."""
    interpolation: str = "bicubic"
    repeats: int = 1
    """How many differently augmented copies of a picture a training batch has (repeated augmentation, arXiv 1901.09335)."""
    decoded_mib: int = 512
    """Sets of pictures of one size that need no more than so many MiB are decoded once, into memory."""
    on_error: str = "raise"
    """What an unreadable picture does: raise (stop, naming it) or skip (leave it out, count and report)."""
    num_workers: int | None = None
    """Processes that read pictures, per device; None: one per core at hand, at most 16."""

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise UserError(f"data.on_error={self.on_error} is unknown; choose raise or skip")
        for name, value, least in (("num_workers", self.num_workers, 0), ("decoded_mib", self.decoded_mib, 0)):
            if value is not None and (not is_whole(value) or value < least):
                raise UserError(f"data.{name}={value} is no whole number of zero or more")
        if not is_whole(self.repeats) or self.repeats < 1:
            raise UserError(f"data.repeats={self.repeats} is no whole number above zero")


class ImageData(LightningDataModule):
    """Feeds a run.

    Args:
        source: training and validation pictures.
        train_transform: picture -> tensor with augmentation; None if the run only evaluates.
        eval_transform: picture -> tensor.
        global_batch: pictures per optimizer update over all processes.
        device_batch: pictures per forward pass of one process.
        seed: decides shuffles and augmentation.
        loading: workers and what to do about unreadable pictures.
    """

    def __init__(
        self,
        source: ImageSource,
        train_transform: Transform | None,
        eval_transform: Transform,
        *,
        global_batch: int,
        device_batch: int,
        seed: int,
        loading: Loading,
    ) -> None:
        super().__init__()
        self.source = source
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self.global_batch = global_batch
        self.device_batch = device_batch
        self.seed = seed
        self.loading = loading
        self.skipped: set[str] = set()
        self._train_loader: TimedLoader | None = None

    @property
    def seconds_waited(self) -> float:
        """For training batches, by the main process, but for the first one of each epoch, before which workers start."""
        return self._train_loader.seconds_waited if self._train_loader is not None else 0.0

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.train_transform is not None
        assert self.trainer is not None
        pictures = self._train_pictures
        order = TrainingOrder(
            len(pictures.labels),
            self.global_batch,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.seed,
            self.loading.repeats,
        )
        self._train_loader = self._loader(TransformedPictures(pictures, self.train_transform, self.seed), order)
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        pictures = self._val_pictures
        order = EvaluationOrder(len(pictures.labels), self.trainer.global_rank, self.trainer.world_size)
        return self._loader(TransformedPictures(pictures, self.eval_transform, self.seed), order)

    @cached_property
    def _train_pictures(self) -> Pictures:
        return decoded(self.source.train, self.loading.decoded_mib)

    @cached_property
    def _val_pictures(self) -> Pictures:
        return decoded(self.source.val, self.loading.decoded_mib)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Stops at an unreadable picture or counts it: here in the main process, where counts are exact for any workers."""
        for line in batch.unreadable:
            if self.loading.on_error == "raise":
                raise UserError(
                    f"unreadable picture {line}\nMend or remove it, or go on without such pictures: data.on_error=skip"
                )
            if line not in self.skipped:
                self.skipped.add(line)
                log.warning("skipped unreadable picture %s", line)
        if len(batch.labels) == 0 and self.trainer is not None and self.trainer.training:
            raise UserError(f"all pictures of a batch are unreadable, such as {batch.unreadable[0]}")
        return batch.images, batch.labels, batch.numbers

    def skipped_everywhere(self) -> set[str]:
        """Unreadable pictures that all processes together have skipped."""
        if not torch.distributed.is_initialized():
            return self.skipped
        gathered: list[set[str] | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, self.skipped)
        return set().union(*(skipped or set() for skipped in gathered))

    def _loader(self, dataset: "TransformedPictures", order: TrainingOrder | EvaluationOrder) -> "TimedLoader":
        assert self.trainer is not None
        workers = self.workers_on(self.trainer.num_devices)
        return TimedLoader(
            dataset,
            batch_size=self.device_batch,
            sampler=order,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )

    def workers_on(self, devices: int) -> int:
        """Processes that read pictures for each of so many devices of this machine."""
        if self.loading.num_workers is not None:
            return self.loading.num_workers
        granted = int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))  # to this process alone
        return min(MOST_WORKERS, max(1, min(granted, cores()) or cores() // max(1, devices)))


def cores() -> int:
    """That this process may use: affinity and the quota of a container count, which joblib knows."""
    return int(joblib.cpu_count())


class TimedLoader(DataLoader[Any]):
    """Knows how long its batches were waited for."""

    seconds_waited: float = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return self._timed(super().__iter__())  # at once: it draws from torch's generator, which drop path draws from as well

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        yield from islice(batches, 1)  # workers start before it
        while True:
            asked = perf_counter()
            batch = next(batches, None)
            self.seconds_waited += perf_counter() - asked
            if batch is None:
                return
            yield batch


class TransformedPictures(Dataset["Sample | str"]):
    """Pictures as tensors. What is random in a transform depends on (seed, epoch, picture), not on workers or processes."""

    def __init__(self, pictures: Pictures, transform: Transform, seed: int) -> None:
        self.pictures = pictures
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, draw: Draw) -> "Sample | str":
        """The picture as a tensor, or one line that names a picture that cannot be decoded."""
        try:
            picture = self.pictures.picture(draw.picture)
        except UNREADABLE as error:
            return f"{self.pictures.name(draw.picture)}: {_first_line(error)}"
        seed = (self.seed * 1_000_003 + draw.epoch) * 1_000_003 + draw.picture + draw.copy * 7_368_787_000_003
        with drawing_from(seed % 2**63):
            return Sample(self.transform(picture), int(self.pictures.labels[draw.picture]), draw.picture)


class Sample(NamedTuple):
    """A picture that could be read."""

    image: Tensor
    label: int
    number: int
    """Which picture of its set."""


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Seeds the generators that transforms draw from.

    torch's is put back, because drop path draws from it in this process; putting back Python's and numpy's, from which nothing
    else draws, would take longer than the transforms themselves.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def collate(samples: list[Sample | str]) -> Batch:
    """Stacks what could be read."""
    read = [sample for sample in samples if not isinstance(sample, str)]
    images = torch.stack([sample.image for sample in read]) if read else torch.empty(0)
    labels = torch.tensor([sample.label for sample in read], dtype=torch.long)
    numbers = torch.tensor([sample.number for sample in read], dtype=torch.long)
    return Batch(images, labels, numbers, [sample for sample in samples if isinstance(sample, str)])


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
