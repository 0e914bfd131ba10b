"""The interface of every data source: a training and a validation set of encoded, labelled images."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from swin_lab.data.decoding import Encoded

MAX_IMAGE_BYTES = 2**30
"""Size of an encoded image at most; the largest image that Pillow decodes has half as many bytes uncompressed."""


class ImageSet(Protocol):
    """Provides encoded images with labels by index; `swin_lab.data.decoding` decodes them."""

    @property
    def labels(self) -> Sequence[int] | np.ndarray:
        """Returns the class indices (N,); of images with several labels, (N, classes) of uint8, 1 for each of their classes."""

    def encoded(self, index: int) -> Encoded:
        """Returns the bytes of an image file, or an array (H, W, 3) of uint8 RGB if there are no bytes.

        Raises:
            one of `swin_lab.data.decoding.UNREADABLE`: the image cannot be read.
        """

    def name(self, index: int) -> str:
        """Returns the name of an image for messages: its path if it has one."""


class ImageSource(Protocol):
    """Provides the training and validation set of a data set, as `data=` selects it."""

    class_names: list[str]
    train: ImageSet
    val: ImageSet


class ArrayImages:
    """Contains decoded images in memory.

    Args:
        images: (N, H, W, 3) of uint8, RGB.
        labels: (N,) class indices, or (N, classes) of 0 and 1.
        origin: name of the set for messages.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, origin: str) -> None:
        self.images = images
        self.labels = labels
        self.origin = origin

    def encoded(self, index: int) -> np.ndarray:
        """Returns the pixels of an image, (H, W, 3)."""
        pixels: np.ndarray = self.images[index]
        return pixels

    def name(self, index: int) -> str:
        """Returns the name of the set and the index."""
        return f"{self.origin}[{index}]"


NO_IMAGES: ImageSet = ArrayImages(np.empty((0, 1, 1, 3), dtype=np.uint8), np.empty(0, dtype=np.int64), "no images")
"""The training set of a source that is only evaluated."""


def read_image_file(file: Path) -> bytes:
    """Reads the bytes of an image file.

    Raises:
        OSError: it cannot be read, is a device, a named pipe or a folder, or is too large for an image.
    """
    with open(file, "rb", opener=_opened_without_waiting) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_IMAGE_BYTES:
            raise OSError("it is not a file" if not stat.S_ISREG(status.st_mode) else f"it has {status.st_size:,} bytes")
        return opened.read()


def _opened_without_waiting(file: str, flags: int) -> int:
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))  # A named pipe would wait until something writes to it.
