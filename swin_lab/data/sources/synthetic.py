"""Images out of a random generator: for tests, dry runs and measuring speed without a disk."""

import numpy as np

from swin_lab.data.images import ArrayImages
from swin_lab.errors import UserError


class Synthetic:
    """Every class is one random pattern of 4x4 coarse squares; every image is its class's pattern under noise.

    Args:
        num_classes: number of classes.
        train_images: images to train on.
        val_images: images to evaluate on.
        img_size: side in pixels.
        split_seed: which patterns and which noise.
    """

    def __init__(
        self,
        num_classes: int = 10,
        train_images: int = 1000,
        val_images: int = 200,
        img_size: int = 32,
        split_seed: int = 0,
    ) -> None:
        for name, value in (("num_classes", num_classes), ("train_images", train_images), ("val_images", val_images)):
            if value < 1:
                raise UserError(f"data.{name}={value} leaves nothing to learn from; give a number above zero")
        if img_size < 4:
            raise UserError(f"data.img_size={img_size} is smaller than the pattern of 4x4 squares; give at least 4")
        generator = np.random.default_rng(split_seed)
        patterns = generator.integers(0, 256, (num_classes, 4, 4, 3))
        self.class_names = [f"pattern {i}" for i in range(num_classes)]
        self.train = _noisy(patterns, train_images, img_size, generator, "synthetic train")
        self.val = _noisy(patterns, val_images, img_size, generator, "synthetic val")


def _noisy(patterns: np.ndarray, count: int, img_size: int, generator: np.random.Generator, origin: str) -> ArrayImages:
    labels = np.arange(count) % len(patterns)
    cell = np.arange(img_size) * 4 // img_size  # which of the 4 squares a pixel row or column lies in
    images = np.empty((count, img_size, img_size, 3), dtype=np.uint8)
    for i, label in enumerate(labels):
        clean = patterns[label][cell][:, cell]
        images[i] = (clean + generator.normal(0, 64, clean.shape)).clip(0, 255)
    return ArrayImages(images, labels, origin)
