"""Images that stay on the device as uint8 and are augmented there, in batches (`data.cache=device`)."""

from collections.abc import Callable
from functools import cached_property, partial
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from swin_lab.data.batched import BatchAugmentation, unsupported
from swin_lab.data.decoding import UNREADABLE, Decoder, first_line
from swin_lab.data.device import Deferred, Rectangle, StagedTransform
from swin_lab.data.draws import Draws
from swin_lab.data.images import ImageSet, ImageSource
from swin_lab.data.loading import Batch, batch_labels, table_of
from swin_lab.data.sampling import SampleIndex
from swin_lab.errors import UserError


class ResidentImages(Dataset[SampleIndex]):
    """Decodes a set once, before its first batch, and keeps it on the device.

    Its items are the samples themselves, of which `collate` makes a batch without pixels.

    Args:
        images: any set.
        to_pixels: RGB image -> (channels, H, W) of uint8, without random numbers.
        shape: channels, height and width of these pixels.
        max_mib: limit in MiB of all pixels.
        decode: the decoder.
        seed: seed of the augmentation.
        augmentation: applied to batches. If None, there is none.

    Raises:
        UserError: the pixels are larger than the limit.
    """

    def __init__(
        self,
        images: ImageSet,
        to_pixels: Callable[[Image.Image], Any],
        shape: tuple[int, int, int],
        *,
        max_mib: int,
        decode: Decoder,
        seed: int,
        augmentation: BatchAugmentation | None = None,
    ) -> None:
        count, mib = len(images.labels), ceil(len(images.labels) * prod(shape) / 2**20)
        if mib > max_mib:
            raise UserError(
                f"data.cache=device: {count:,} images of {shape[1]}x{shape[2]} need {mib:,} MiB, more than "
                f"data.cache_mib={max_mib}; raise it if the device has that much memory, or set data.cache=memory"
            )
        self.images = images
        self.to_pixels = to_pixels
        self.shape = shape
        self.decode = decode
        self.seed = seed
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, sample: SampleIndex) -> SampleIndex:
        return sample

    def collate(self, samples: list[SampleIndex]) -> Batch[Deferred]:
        """Draws the random numbers of a batch; its pixels stay on the device."""
        _, unreadable = self._decoded
        lines = [unreadable[sample.image_index] for sample in samples if sample.image_index in unreadable]
        read = [sample for sample in samples if sample.image_index not in unreadable]
        indices = np.array([sample.image_index for sample in read], dtype=np.int64)
        labels = batch_labels(np.asarray(self.images.labels)[indices])
        drawn: list[tuple[np.ndarray, ...]] = []
        erased: list[tuple[int, Rectangle]] = []
        if self.augmentation is not None and read:
            copies = np.array([sample.copy for sample in read], dtype=np.int64)
            drawn, erased = self.augmentation.draw(Draws(self.seed, read[0].epoch, indices, copies))
        return Batch(Deferred(partial(self.pixels, drawn=drawn)), labels, table_of(read), lines, erased)

    def pixels(self, indices: Tensor, drawn: list[tuple[np.ndarray, ...]]) -> Tensor:
        """Returns augmented pixels of images by their indices (B,), on the device of these, (B, channels, H, W) of uint8."""
        pixels_NCHW, unreadable = self._decoded
        if pixels_NCHW.device != indices.device:
            pixels_NCHW = pixels_NCHW.to(indices.device)
            self._decoded = pixels_NCHW, unreadable
        chosen = pixels_NCHW.index_select(0, indices)
        return chosen if self.augmentation is None else self.augmentation(chosen, drawn)

    @cached_property
    def _decoded(self) -> tuple[Tensor, dict[int, str]]:
        """Returns all pixels (N, channels, H, W) of uint8, and one line for each image that cannot be decoded, by its index."""
        unreadable: dict[int, str] = {}
        pixels_NCHW = torch.zeros(len(self), *self.shape, dtype=torch.uint8)
        for index in range(len(self)):
            try:
                image = self.decode(self.images.encoded(index))
            except UserError:  # the item of a map-style dataset is no image
                raise
            except UNREADABLE as error:  # reported when it is part of a batch
                unreadable[index] = f"{self.images.name(index)}: {first_line(error)}"
                continue
            pixels = self.to_pixels(image)
            if tuple(pixels.shape) != self.shape:
                raise UserError(
                    f"data.cache=device: {self.images.name(index)} has {pixels.shape[1]}x{pixels.shape[2]} pixels, and the "
                    f"network takes {self.shape[1]}x{self.shape[2]}; begin augment.image_transforms with ResizeToCover and "
                    "CenterCrop, or set data.cache=memory"
                )
            pixels_NCHW[index] = pixels
        return pixels_NCHW, unreadable


def resident_sets(
    source: ImageSource,
    train_transform: StagedTransform | None,
    eval_transform: StagedTransform,
    *,
    max_mib: int,
    decode: Decoder,
    seed: int,
) -> dict[str, ResidentImages]:
    """Prepares both sets of a run, without reading an image.

    Args:
        source: training and validation images.
        train_transform: the transform of training. If None, the run only evaluates.
        eval_transform: the transform of an evaluation.
        max_mib: limit in MiB of each set.
        decode: the decoder.
        seed: seed of the augmentation.

    Returns:
        `val`, and `train` if there is training.

    Raises:
        UserError: a set is larger than the limit, or a transform cannot be applied to a batch.
    """
    pixels = eval_transform.worker(Image.new("RGB", (1, 1)))
    if eval_transform.device is None:
        raise unsupported(eval_transform.worker)
    channels, height, width = pixels.shape  # An evaluation resizes every image to one size.
    resident = partial(ResidentImages, max_mib=max_mib, decode=decode, seed=seed)
    sets = {"val": resident(source.val, eval_transform.worker, (channels, height, width))}
    if train_transform is not None:
        augmentation = BatchAugmentation(train_transform, (height, width))
        sets["train"] = resident(source.train, augmentation.resized, (3, height, width), augmentation=augmentation)
    return sets
