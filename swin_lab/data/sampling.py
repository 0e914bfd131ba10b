"""Which image is seen when, by which process: the same global batches for any number of devices and workers."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import Sampler


class SampleIndex(NamedTuple):
    """One visit to an image."""

    epoch: int
    image_index: int
    copy: int = 0
    """Of repeated augmentation: which of the copies of this epoch."""


class TrainSampler(Sampler[SampleIndex]):
    """Every epoch a new shuffle, cut into whole global batches; each process takes its equal part of every batch.

    What is left over at the end of a shuffle waits for another epoch, so that all updates see equally many images.

    Args:
        num_images: size of the training set.
        global_batch: images per optimizer update, over all processes and accumulation steps.
        rank: this process.
        world_size: number of processes; divides global_batch.
        seed: decides all shuffles.
        repeats: copies of every image drawn, one after the other; an epoch is as long as ever.
    """

    def __init__(self, num_images: int, global_batch: int, rank: int, world_size: int, seed: int, repeats: int = 1) -> None:
        self.num_images = num_images
        self.global_batch = global_batch
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.repeats = repeats
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images // self.global_batch * (self.global_batch // self.world_size)

    def __iter__(self) -> Iterator[SampleIndex]:
        shuffle = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.num_images, generator=shuffle)
        whole = self.num_images // self.global_batch * self.global_batch
        places = torch.arange(whole).reshape(-1, self.world_size, self.global_batch // self.world_size)[:, self.rank].flatten()
        drawn = order[places // self.repeats]
        for index, place in zip(drawn.tolist(), places.tolist(), strict=True):
            yield SampleIndex(self.epoch, index, place % self.repeats)


class EvalSampler(Sampler[SampleIndex]):
    """Every image exactly once over all processes: process r takes r, r + world_size, ...; none is repeated to even out."""

    def __init__(self, num_images: int, rank: int, world_size: int) -> None:
        self.indices = range(rank, num_images, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[SampleIndex]:
        return (SampleIndex(0, index) for index in self.indices)
