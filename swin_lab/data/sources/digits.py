"""1,797 real handwritten digits that are part of scikit-learn: the data of the default run, without a download."""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from PIL import Image

from swin_lab.data.images import ArrayImages
from swin_lab.data.splitting import SplitSeed, ValFraction, split_by_class


class Digits:
    """Provides the 8x8 scans of the UCI "Optical Recognition of Handwritten Digits" test set, resized.

    Args:
        img_size: side in pixels after resizing (bicubic), at most 256.
        val_fraction: fraction of every class in the validation set; 0.2 gives 360 scans.
        split_seed: seed of the split.
    """

    def __init__(
        self, img_size: Annotated[int, Ge(1), Le(256)] = 32, val_fraction: ValFraction = 0.2, split_seed: SplitSeed = 0
    ) -> None:
        from sklearn.datasets import load_digits

        scans, labels = load_digits(return_X_y=True)  # (1797, 64) of 0 to 16
        grey = (scans.reshape(-1, 8, 8) / 16 * 255).round().astype(np.uint8)
        images = np.stack([_resized(scan, img_size) for scan in grey])
        train, val = split_by_class(labels, val_fraction, split_seed)
        self.class_names = [str(digit) for digit in range(10)]
        self.train = ArrayImages(images[train], labels[train], "digits train")
        self.val = ArrayImages(images[val], labels[val], "digits val")


def _resized(scan: np.ndarray, img_size: int) -> np.ndarray:
    """Resizes (8, 8) greyscale to (img_size, img_size, 3)."""
    return np.asarray(Image.fromarray(scan).resize((img_size, img_size), Image.Resampling.BICUBIC).convert("RGB"))
