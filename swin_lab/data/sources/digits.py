"""1,797 real handwritten digits, shipped with scikit-learn: the data of the default run, no download needed."""

import numpy as np
from PIL import Image

from swin_lab.data.images import ArrayImages, split_by_class


class Digits:
    """The 8x8 scans of the UCI "Optical Recognition of Handwritten Digits" test set, enlarged.

    Args:
        img_size: side in pixels after enlarging (bicubic).
        val_fraction: part of every class that is held out; 0.2 is 360 scans.
        split_seed: which ones.
    """

    def __init__(self, img_size: int = 32, val_fraction: float = 0.2, split_seed: int = 0) -> None:
        from sklearn.datasets import load_digits

        scans, labels = load_digits(return_X_y=True)  # (1797, 64) of 0 to 16
        grey = (scans.reshape(-1, 8, 8) / 16 * 255).round().astype(np.uint8)
        images = np.stack([_enlarged(scan, img_size) for scan in grey])
        train, val = split_by_class(labels, val_fraction, split_seed)
        self.class_names = [str(digit) for digit in range(10)]
        self.train = ArrayImages(images[train], labels[train], "digits train")
        self.val = ArrayImages(images[val], labels[val], "digits val")


def _enlarged(scan: np.ndarray, img_size: int) -> np.ndarray:
    """(8, 8) grey -> (img_size, img_size, 3)."""
    return np.asarray(Image.fromarray(scan).resize((img_size, img_size), Image.Resampling.BICUBIC).convert("RGB"))
