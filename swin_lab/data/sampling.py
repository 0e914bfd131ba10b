"""The order of the images: the same global batches for any number of devices and workers."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import Sampler


class SampleIndex(NamedTuple):
    """Identifies a training sample; its augmentation depends on nothing else but the seed."""

    epoch: int
    image_index: int
    copy: int = 0
    """Number of the copy within the epoch, for repeated augmentation."""


class Start(NamedTuple):
    """Describes where a resumed run goes on."""

    epoch: int = 0
    """The first epoch, counted from 0."""
    updates: int = 0
    """Updates of that epoch whose images are left out, because the run has made them before it was interrupted."""


BEGINNING = Start()


class TrainSampler(Sampler[SampleIndex]):
    """Shuffles in every epoch and splits the order into whole global batches, of which each process takes an equal part.

    The images that remain at the end of a shuffle are left out of the epoch, so that all updates see equally many images.

    Args:
        num_images: size of the training set.
        global_batch: images per optimizer update, over all processes and accumulation steps.
        rank: rank of this process.
        world_size: number of processes; it divides global_batch.
        seed: seed of all shuffles.
        repeats: consecutive copies of every image; the length of an epoch does not depend on it.
        start: where the order begins; see `Start`.
    """

    def __init__(
        self,
        num_images: int,
        global_batch: int,
        rank: int,
        world_size: int,
        seed: int,
        repeats: int = 1,
        start: Start = BEGINNING,
    ) -> None:
        self.num_images = num_images
        self.global_batch = global_batch
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.repeats = repeats
        self.start = start
        self.epoch = start.epoch

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose order is returned next; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images // self.global_batch * (self.global_batch // self.world_size)

    def __iter__(self) -> Iterator[SampleIndex]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(self.num_images, generator=generator)
        used = self.num_images // self.global_batch * self.global_batch
        by_process = torch.arange(used).reshape(-1, self.world_size, self.global_batch // self.world_size)
        if self.epoch == self.start.epoch:
            by_process = by_process[self.start.updates :]
        positions = by_process[:, self.rank].flatten()
        indices = shuffled[positions // self.repeats]
        for index, position in zip(indices.tolist(), positions.tolist(), strict=True):
            yield SampleIndex(self.epoch, index, position % self.repeats)


class EvalSampler(Sampler[SampleIndex]):
    """Returns every image exactly once over all processes: process r takes r, r + world_size, ...; nothing is padded.

    Args:
        num_images: size of the validation set.
        rank: rank of this process.
        world_size: number of processes.
    """

    def __init__(self, num_images: int, rank: int, world_size: int) -> None:
        self.indices = range(rank, num_images, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[SampleIndex]:
        return (SampleIndex(0, index) for index in self.indices)
