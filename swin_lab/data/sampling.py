"""The order of the images: the same global batches for any number of devices and workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
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


@dataclass(frozen=True)
class ClassBalance:
    """Draws the images of an epoch so that rare classes occur more often (arXiv 1910.09217, section 3).

    An epoch has as many images as without it. Each class gets its share of them, rounded up or down at random, and each image
    of a class occurs equally often, up to one.

    Args:
        labels_N: class index of each image.
        strength: 0 draws a class of n images in proportion to n, 0.5 to the square root of n, 1 all classes equally often.
    """

    labels_N: np.ndarray
    strength: float

    def __str__(self) -> str:
        """Returns how many images of the rarest and of the most frequent class an epoch has, as a line of text."""
        counts_K = np.unique(self.labels_N, return_counts=True)[1]
        weights_K = self._weights(counts_K)
        drawn_K = weights_K / weights_K.sum() * len(self.labels_N)
        sizes, drawn = (dict.fromkeys(f"{number:,.0f}" for number in (x_K.min(), x_K.max())) for x_K in (counts_K, drawn_K))
        return f"{' to '.join(sizes)} images per class, of which an epoch draws {' to '.join(drawn)}"

    def _weights(self, counts_K: np.ndarray) -> np.ndarray:
        """Returns a number for each class that its part of an epoch is proportional to, from the numbers of images."""
        weights_K: np.ndarray = counts_K.astype(np.float64) ** (1 - self.strength)
        return weights_K

    def order(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the shuffled images of an epoch (N,), and how often each has occurred before in it (N,)."""
        total = len(self.labels_N)
        by_class = torch.from_numpy(np.argsort(self.labels_N, kind="stable"))
        counts_K = np.unique(self.labels_N, return_counts=True)[1]
        weights_K = self._weights(counts_K)
        ends_K = np.cumsum(weights_K) / weights_K.sum() * total
        ends_K[-1] = total
        # One offset for all classes: every share is rounded up or down, and their sum remains the number of images.
        starts = np.floor(np.concatenate([[0.0], ends_K]) + torch.rand((), generator=generator, dtype=torch.float64).item())
        indices, copies = [], []
        for images, drawn in zip(by_class.split(counts_K.tolist()), np.diff(starts).astype(int).tolist(), strict=True):
            passes = -(-drawn // len(images))
            shuffled = [images[torch.randperm(len(images), generator=generator)] for _ in range(passes)]
            indices.append(torch.cat([*shuffled, images[:0]])[:drawn])
            copies.append(torch.arange(passes).repeat_interleave(len(images))[:drawn])
        order = torch.randperm(total, generator=generator)
        return torch.cat(indices)[order], torch.cat(copies)[order]


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
        balance: draws the images of an epoch. If None, each occurs once.
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
        balance: ClassBalance | None = None,
    ) -> None:
        self.num_images = num_images
        self.global_batch = global_batch
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.repeats = repeats
        self.start = start
        self.balance = balance
        self.epoch = start.epoch

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose order is returned next; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images // self.global_batch * (self.global_batch // self.world_size)

    def __iter__(self) -> Iterator[SampleIndex]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.balance is None:
            shuffled, before = (
                torch.randperm(self.num_images, generator=generator),
                torch.zeros(self.num_images, dtype=torch.long),
            )
        else:
            shuffled, before = self.balance.order(generator)
        used = self.num_images // self.global_batch * self.global_batch
        by_process = torch.arange(used).reshape(-1, self.world_size, self.global_batch // self.world_size)
        if self.epoch == self.start.epoch:
            by_process = by_process[self.start.updates :]
        positions = by_process[:, self.rank].flatten()
        drawn = positions // self.repeats
        copies = before[drawn] * self.repeats + positions % self.repeats
        for index, copy in zip(shuffled[drawn].tolist(), copies.tolist(), strict=True):
            yield SampleIndex(self.epoch, index, copy)


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
