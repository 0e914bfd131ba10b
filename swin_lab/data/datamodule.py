"""Pictures in batches: the LightningDataModule of every source."""

import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from swin_lab.data.pictures import UNREADABLE, ImageSource, Pictures
from swin_lab.data.sampling import Draw, EvaluationOrder, TrainingOrder
from swin_lab.errors import UserError, is_whole

log = logging.getLogger("swin_lab.data")

Transform = Callable[[Image.Image], Tensor]


class Batch(NamedTuple):
    """What a worker hands over."""

    images: Tensor
    """(B, channels, height, width)."""
    labels: Tensor
    """(B,)."""
    unreadable: list[str]
    """One line for each picture that should be here and could not be decoded."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How pictures are read, whatever their source; the keys that every `data=` group has besides the source's own."""

    mean: tuple[float, ...] | None = None
    """Per channel, of values from 0 to 1; None: measured on the training pictures."""
    std: tuple[float, ...] | None = None
    crop_pct: float = 1.0
    """Part of the resized side that the centre crop of an evaluation keeps."""
    interpolation: str = "bicubic"
    on_error: str = "raise"
    """What an unreadable picture does: raise (stop, naming it) or skip (leave it out, count and report)."""
    num_workers: int | None = None
    """Processes that read pictures, per device; None: one per core, at most 8."""

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise UserError(f"data.on_error={self.on_error} is unknown; choose raise or skip")
        if self.num_workers is not None and (not is_whole(self.num_workers) or self.num_workers < 0):
            raise UserError(f"data.num_workers={self.num_workers} is no whole number of zero or more")


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

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.train_transform is not None
        assert self.trainer is not None
        pictures = self.source.train
        order = TrainingOrder(
            len(pictures.labels), self.global_batch, self.trainer.global_rank, self.trainer.world_size, self.seed
        )
        return self._loader(TransformedPictures(pictures, self.train_transform, self.seed), order)

    def val_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        pictures = self.source.val
        order = EvaluationOrder(len(pictures.labels), self.trainer.global_rank, self.trainer.world_size)
        return self._loader(TransformedPictures(pictures, self.eval_transform, self.seed), order)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor]:
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
        return batch.images, batch.labels

    def skipped_everywhere(self) -> set[str]:
        """Unreadable pictures that all processes together have skipped."""
        if not torch.distributed.is_initialized():
            return self.skipped
        gathered: list[set[str] | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, self.skipped)
        return set().union(*(skipped or set() for skipped in gathered))

    def _loader(self, dataset: "TransformedPictures", order: TrainingOrder | EvaluationOrder) -> DataLoader[Any]:
        workers = self._workers()
        return DataLoader(
            dataset,
            batch_size=self.device_batch,
            sampler=order,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )

    def _workers(self) -> int:
        if self.loading.num_workers is not None:
            return self.loading.num_workers
        assert self.trainer is not None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(8, max(1, cores // max(1, self.trainer.num_devices)))


class TransformedPictures(Dataset[tuple[Tensor, int] | str]):
    """Pictures as tensors. What is random in a transform depends on (seed, epoch, picture), not on workers or processes."""

    def __init__(self, pictures: Pictures, transform: Transform, seed: int) -> None:
        self.pictures = pictures
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int] | str:
        """(tensor, label), or one line that names a picture that cannot be decoded."""
        try:
            picture = self.pictures.picture(draw.picture)
        except UNREADABLE as error:
            return f"{self.pictures.name(draw.picture)}: {_first_line(error)}"
        with drawing_from(((self.seed * 1_000_003 + draw.epoch) * 1_000_003 + draw.picture) % 2**63):
            return self.transform(picture), int(self.pictures.labels[draw.picture])


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


def collate(samples: list[tuple[Tensor, int] | str]) -> Batch:
    """Stacks what could be read."""
    read = [sample for sample in samples if not isinstance(sample, str)]
    images = torch.stack([image for image, _ in read]) if read else torch.empty(0)
    return Batch(images, torch.tensor([label for _, label in read]), [s for s in samples if isinstance(s, str)])


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
