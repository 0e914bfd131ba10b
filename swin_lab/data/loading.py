"""The dataset that decodes and transforms images, the collate function and the DataLoader."""

import atexit
import errno
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from swin_lab import interruption
from swin_lab.data.decoding import UNREADABLE, Decoder, decode, first_line
from swin_lab.data.device import Deferred, Rectangle, staged
from swin_lab.data.images import ImageSet
from swin_lab.data.sampling import EvalSampler, SampleIndex, TrainSampler
from swin_lab.data.transforms import Transform, random_state
from swin_lab.errors import UserError

Images = TypeVar("Images", Tensor, Deferred)


@dataclass(frozen=True)
class Sample:
    """Contains a transformed image."""

    image: Tensor
    """(channels, H, W)."""
    label: int | np.ndarray
    """Class index, or (classes,) of 0 and 1."""
    sample: SampleIndex
    """Epoch, image and copy."""
    erased: list[Rectangle]
    """Rectangles that the device erases."""


class Batch(NamedTuple, Generic[Images]):
    """Contains the images that a worker returns."""

    images: Images
    """(B, channels, H, W), of uint8 if the device normalises them; or what makes them there."""
    labels: Tensor
    """(B,) class indices, or (B, classes) of 0 and 1."""
    samples: Tensor
    """(B, 3) epoch, index of the image in its set, and copy."""
    unreadable: list[str]
    """One line for each image that belongs to the batch and could not be decoded."""
    erased: list[tuple[int, Rectangle]]
    """Position of an image in the batch, and a rectangle that the device erases."""
    wrong: str | None = None
    """Message of an error that is not that of one image, such as a transform that does not return a tensor."""

    @property
    def indices(self) -> Tensor:
        """Returns the indices of the images in their set, (B,)."""
        return self.samples[:, 1]


@dataclass(frozen=True)
class Wrong:
    """Contains the message of an error: the process of a worker cannot raise it without a traceback in the message."""

    message: str


class TransformedImages(Dataset["Sample | str | Wrong"]):
    """Provides transformed images as a map-style dataset.

    The randomness of a transform depends on (seed, epoch, image, copy), not on workers or processes.

    Args:
        images: encoded images.
        transform: RGB image -> tensor; only the first stage of a `StagedTransform` is applied here.
        seed: seed of the augmentation.
        decode: the decoder.
    """

    def __init__(self, images: ImageSet, transform: Transform, seed: int, decode: Decoder = decode) -> None:
        self.images = images
        self.transform = staged(transform)
        self.seed = seed
        self.decode = decode

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, sample: SampleIndex) -> "Sample | str | Wrong":
        """Returns a transformed image, or one line that names an image that cannot be decoded, or the message of an error."""
        index = sample.image_index
        with random_state(sample_seed(self.seed, sample)):
            try:
                image = self.decode(self.images.encoded(index))  # A map-style dataset may use random numbers here.
            except UserError as error:  # the item of a map-style dataset is no image
                return Wrong(str(error))
            except UNREADABLE as error:
                if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
                    raise
                return f"{self.images.name(index)}: {first_line(error)}"
            transformed = self.transform.worker(image)
            if self._fits(transformed):
                return Sample(transformed, self.images.labels[index], sample, self.transform.rectangles(transformed))
        shape = f" of {transformed.dtype}, {tuple(transformed.shape)}" if isinstance(transformed, Tensor) else ""
        return Wrong(
            f"the transforms make a {type(transformed).__name__}{shape} of {self.images.name(index)}; "
            "they must make a tensor (channels, H, W) of floats"
        )

    def _fits(self, transformed: Any) -> bool:
        if not isinstance(transformed, Tensor) or transformed.ndim != 3:
            return False
        return transformed.is_floating_point() if self.transform.device is None else transformed.dtype == torch.uint8


def sample_seed(seed: int, sample: SampleIndex) -> int:
    """Returns the seed of a sample's augmentation; `seed` is that of the run."""
    return ((seed * 1_000_003 + sample.epoch) * 1_000_003 + sample.image_index + sample.copy * 7_368_787_000_003) % 2**63


def collate(samples: list[Sample | str | Wrong]) -> Batch[Tensor]:
    """Stacks the images that could be decoded."""
    read = [sample for sample in samples if isinstance(sample, Sample)]
    wrong = next((sample.message for sample in samples if isinstance(sample, Wrong)), None)
    shapes = list(dict.fromkeys(tuple(sample.image.shape) for sample in read))
    if wrong is None and len(shapes) > 1:
        wrong = f"the transforms make images of different shapes, {shapes[0]} and {shapes[1]}; they must resize to one size"
    if wrong is not None:
        return Batch(torch.empty(0), torch.empty(0), torch.empty(0), [], [], wrong)
    # Pixels are views of (H, W, channels) and are stacked as such: collecting the channels is left to the device.
    rows = [sample.image.permute(1, 2, 0) for sample in read]
    images = torch.stack(rows).permute(0, 3, 1, 2) if read else torch.empty(0)
    labels = batch_labels([sample.label for sample in read])
    samples_B3 = table_of([sample.sample for sample in read])
    erased = [(position, rectangle) for position, sample in enumerate(read) for rectangle in sample.erased]
    return Batch(images, labels, samples_B3, [sample for sample in samples if isinstance(sample, str)], erased)


def batch_labels(labels: Sequence[int | np.ndarray] | np.ndarray) -> Tensor:
    """Returns the labels of a batch: class indices (B,) of int64, or (B, classes) of uint8 for several labels per image."""
    array = np.asarray(labels)
    return torch.from_numpy(array.astype(np.int64 if array.ndim == 1 else np.uint8))


def table_of(samples: Sequence[SampleIndex]) -> Tensor:
    """Returns epoch, image and copy of every sample, (B, 3)."""
    return torch.tensor(samples, dtype=torch.long).reshape(-1, 3)


OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Error numbers of the system that say nothing about an image: too many files are open, or there is no memory."""


def ignore_signals(worker: int) -> None:
    """Lets workers deliver the batches of the last update where all processes of a run receive the signal that stops it."""
    for name in interruption.NAMES:
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def end_workers() -> None:
    """Ends the processes of loader workers, after an error or at the end of this process.

    They ignore SIGTERM, with which Python would end them, and one that was killed can have left a lock that they wait for.
    """
    handled = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    # torch's handler would raise an error for every worker that ends here.
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if handled else None
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
            process.join()
    if handled:
        signal.signal(signal.SIGCHLD, before)


class LostWorkerError(RuntimeError):
    """A loader worker has ended while it passed a batch to this process."""


class WaitingTime:
    """Contains the time that the main process has waited for batches."""

    seconds: float = 0.0


class TimedLoader(DataLoader[Any]):
    """Loads batches and measures how long the process waits for them.

    Args:
        dataset: transformed images, or what `collate` takes.
        sampler: order of the images.
        batch_size: images in a batch; the last one may have fewer.
        num_workers: processes that decode and transform; 0 does both in the main process.
        waiting: the time is added to it, except for the first batch of each epoch, before which workers start.
        collate: items of the dataset -> a batch.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        sampler: TrainSampler | EvalSampler,
        batch_size: int,
        num_workers: int,
        waiting: WaitingTime,
        collate: Callable[[list[Any]], Any] = collate,
    ) -> None:
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            generator=torch.Generator(),
            worker_init_fn=ignore_signals,
        )
        self.waiting = waiting

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # By default, an iterator takes the seed of its workers from torch's generator, and persistent workers do so only once.
        # Here every image has a seed of its own, and that generator does not depend on the loader.
        assert self.generator is not None
        self.generator.manual_seed(0)
        return self._timed(self.batches())

    def batches(self) -> Iterator[Any]:
        """Returns the batches of a pass."""
        if self.num_workers:
            atexit.unregister(end_workers)
            atexit.register(end_workers)  # before Python's own end of workers, which would wait for ever
        return super().__iter__()

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        for number in count():
            start = perf_counter()
            try:
                batch = next(batches, None)
            except (ConnectionError, EOFError) as error:  # torch names a worker only if the system has noted its end already.
                raise LostWorkerError("a loader worker has ended") from error
            if number > 0:
                self.waiting.seconds += perf_counter() - start
            if batch is None:
                return
            yield batch
