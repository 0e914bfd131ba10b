"""Images in batches: the LightningDataModule of every source."""

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

from swin_lab.data.images import UNREADABLE, ImageSet, ImageSource, cached_in_memory
from swin_lab.data.sampling import EvalSampler, SampleIndex, TrainSampler
from swin_lab.errors import UserError, is_whole

log = logging.getLogger("swin_lab.data")

Transform = Callable[[Image.Image], Tensor]

MAX_WORKERS = 16
"""Per device, unless asked for."""


class Batch(NamedTuple):
    """What a worker hands over."""

    images: Tensor
    """(B, channels, height, width)."""
    labels: Tensor
    """(B,)."""
    numbers: Tensor
    """(B,), which image of its set each is."""
    unreadable: list[str]
    """One line for each image that should be here and could not be decoded."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How images are read, whatever their source; the keys that every `data=` group has besides the source's own."""

    mean: tuple[float, ...] | None = None
    """Per channel, of values from 0 to 1; None: measured on the training images."""
    std: tuple[float, ...] | None = None
    resize_mode: str = "crop"
    """How an evaluation fits an image to the network: crop (sides in proportion) or stretch."""
    crop_pct: float = 1.0
    """Part of the resized side that the centre crop of an evaluation keeps."""
    interpolation: str = "bicubic"
    repeats: int = 1
    """How many differently augmented copies of an image a training batch has (repeated augmentation, arXiv 1901.09335)."""
    cache_mib: int = 512
    """Sets of images of one size that need no more than so many MiB are decoded once, into memory."""
    on_error: str = "raise"
    """What an unreadable image does: raise (stop, naming it) or skip (leave it out, count and report)."""
    num_workers: int | None = None
    """Processes that read images, per device; None: one per core at hand, at most 16."""

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise UserError(f"data.on_error={self.on_error} is unknown; choose raise or skip")
        for name, value, least in (("num_workers", self.num_workers, 0), ("cache_mib", self.cache_mib, 0)):
            if value is not None and (not is_whole(value) or value < least):
                raise UserError(f"data.{name}={value} is no whole number of zero or more")
        if not is_whole(self.repeats) or self.repeats < 1:
            raise UserError(f"data.repeats={self.repeats} is no whole number above zero")


class ImageData(LightningDataModule):
    """Feeds a run.

    Args:
        source: training and validation images.
        train_transform: image -> tensor with augmentation; None if the run only evaluates.
        eval_transform: image -> tensor.
        global_batch: images per optimizer update over all processes.
        device_batch: images per forward pass of one process.
        seed: decides shuffles and augmentation.
        loading: workers and what to do about unreadable images.
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
        loading: LoaderConfig,
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
        images = self._train_images
        order = TrainSampler(
            len(images.labels),
            self.global_batch,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.seed,
            self.loading.repeats,
        )
        self._train_loader = self._loader(TransformedImages(images, self.train_transform, self.seed), order)
        return self._train_loader

    def val_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        images = self._val_images
        order = EvalSampler(len(images.labels), self.trainer.global_rank, self.trainer.world_size)
        return self._loader(TransformedImages(images, self.eval_transform, self.seed), order)

    @cached_property
    def _train_images(self) -> ImageSet:
        return cached_in_memory(self.source.train, self.loading.cache_mib)

    @cached_property
    def _val_images(self) -> ImageSet:
        return cached_in_memory(self.source.val, self.loading.cache_mib)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Stops at an unreadable image or counts it: here in the main process, where counts are exact for any workers."""
        for line in batch.unreadable:
            if self.loading.on_error == "raise":
                raise UserError(f"unreadable image {line}\nMend or remove it, or go on without such images: data.on_error=skip")
            if line not in self.skipped:
                self.skipped.add(line)
                log.warning("skipped unreadable image %s", line)
        if len(batch.labels) == 0 and self.trainer is not None and self.trainer.training:
            raise UserError(f"all images of a batch are unreadable, such as {batch.unreadable[0]}")
        return batch.images, batch.labels, batch.numbers

    def skipped_everywhere(self) -> set[str]:
        """Unreadable images that all processes together have skipped."""
        if not torch.distributed.is_initialized():
            return self.skipped
        gathered: list[set[str] | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, self.skipped)
        return set().union(*(skipped or set() for skipped in gathered))

    def _loader(self, dataset: "TransformedImages", order: TrainSampler | EvalSampler) -> "TimedLoader":
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
        """Processes that read images for each of so many devices of this machine."""
        if self.loading.num_workers is not None:
            return self.loading.num_workers
        granted = int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))  # to this process alone
        return min(MAX_WORKERS, max(1, min(granted, cores()) or cores() // max(1, devices)))


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


class TransformedImages(Dataset["Sample | str"]):
    """Images as tensors. What is random in a transform depends on (seed, epoch, image), not on workers or processes."""

    def __init__(self, images: ImageSet, transform: Transform, seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, draw: SampleIndex) -> "Sample | str":
        """The image as a tensor, or one line that names an image that cannot be decoded."""
        try:
            image = self.images.image(draw.image_index)
        except UNREADABLE as error:
            return f"{self.images.name(draw.image_index)}: {_first_line(error)}"
        seed = (self.seed * 1_000_003 + draw.epoch) * 1_000_003 + draw.image_index + draw.copy * 7_368_787_000_003
        with drawing_from(seed % 2**63):
            return Sample(self.transform(image), int(self.images.labels[draw.image_index]), draw.image_index)


class Sample(NamedTuple):
    """An image that could be read."""

    image: Tensor
    label: int
    number: int
    """Which image of its set."""


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
