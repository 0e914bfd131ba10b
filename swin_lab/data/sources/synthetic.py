"""Images from a random generator: for tests, dry runs and measuring speed without a disk."""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from swin_lab.data.classes import NumClasses
from swin_lab.data.images import ArrayImages
from swin_lab.data.splitting import SplitSeed
from swin_lab.errors import UserError
from swin_lab.validation import PositiveInt

MAX_BYTES = 4 * 2**30
"""Memory that the images take at most."""


def bytes_in_memory(train_images: int = 1000, val_images: int = 200, img_size: int = 32) -> int:
    """Returns the bytes that the images of `Synthetic` take."""
    return (train_images + val_images) * img_size**2 * 3


class Synthetic:
    """Generates one random pattern of 4x4 squares per class; every image is the pattern of its class with noise.

    Args:
        num_classes: number of classes.
        train_images: number of training images.
        val_images: number of validation images.
        img_size: side in pixels, at least that of the pattern.
        split_seed: seed of patterns and noise.
        several_labels: whether the right half of an image has the pattern of another class, so that it has two labels.

    Raises:
        UserError: the images would take more than 4 GiB of memory.
    """

    def __init__(
        self,
        num_classes: NumClasses = 10,
        train_images: PositiveInt = 1000,
        val_images: PositiveInt = 200,
        img_size: Annotated[int, Ge(4)] = 32,
        split_seed: SplitSeed = 0,
        several_labels: bool = False,
    ) -> None:
        if bytes_in_memory(train_images, val_images, img_size) > MAX_BYTES:
            raise UserError(
                f"data.train_images={train_images}, data.val_images={val_images} and data.img_size={img_size} make more than "
                f"{MAX_BYTES >> 30} GiB of images in memory; lower one of them"
            )
        generator = np.random.default_rng(split_seed)
        patterns = generator.integers(0, 256, (num_classes, 4, 4, 3))
        self.class_names = [f"pattern {i}" for i in range(num_classes)]
        self.train = _noisy(patterns, train_images, img_size, generator, "synthetic train", several_labels)
        self.val = _noisy(patterns, val_images, img_size, generator, "synthetic val", several_labels)


def _noisy(
    patterns: np.ndarray, count: int, img_size: int, generator: np.random.Generator, origin: str, several: bool
) -> ArrayImages:
    labels = np.arange(count) % len(patterns)
    others = (labels * 3 + 1) % len(patterns) if several else labels
    square = np.arange(img_size) * 4 // img_size  # which of the 4 squares a row or column of pixels belongs to
    images = np.empty((count, img_size, img_size, 3), dtype=np.uint8)
    for i, (label, other) in enumerate(zip(labels, others, strict=True)):
        clean = np.concatenate([patterns[label][:, :2], patterns[other][:, 2:]], axis=1)[square][:, square]
        images[i] = (clean + generator.normal(0, 64, clean.shape)).clip(0, 255)
    if several:
        classes = np.arange(len(patterns))
        labels = ((labels[:, None] == classes) | (others[:, None] == classes)).astype(np.uint8)
    return ArrayImages(images, labels, origin)
