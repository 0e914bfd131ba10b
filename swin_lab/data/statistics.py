"""Statistics of a set of images: the mean and standard deviation of its channels, and its fingerprint."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from swin_lab.data.decoding import UNREADABLE, decode
from swin_lab.data.images import ImageSet
from swin_lab.errors import UserError

NAMES_IN_FINGERPRINT, IMAGES_IN_FINGERPRINT = 1000, 32


def evenly_spaced(images: ImageSet, limit: int) -> list[int]:
    """Returns the indices of up to `limit` evenly spaced images, the first and the last among them."""
    count = len(images.labels)
    indices: list[int] = np.linspace(0, count - 1, num=min(count, limit), dtype=int).tolist()
    return indices


def fingerprint(images: ImageSet) -> str:
    """Returns a hash of a set: of all labels, the names of up to 1,000 images and the pixels of up to 32."""
    labels = np.asarray(images.labels)
    digest = hashlib.sha256(np.ascontiguousarray(labels, dtype=np.int64 if labels.ndim == 1 else np.uint8).data)
    for index in evenly_spaced(images, NAMES_IN_FINGERPRINT):
        digest.update(os.fsencode(Path(images.name(index)).name))  # a file name need not be UTF-8
    for image in _readable(images, IMAGES_IN_FINGERPRINT):
        digest.update(image.tobytes())
    return digest.hexdigest()[:16]


def channel_statistics(images: ImageSet, limit: int = 500) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measures the mean and the standard deviation of the red, green and blue values (0 to 1), rounded to four digits.

    Args:
        images: the training set.
        limit: number of evenly spaced images to measure; images that cannot be decoded are left out.

    Returns:
        Three means and three standard deviations.

    Raises:
        UserError: there are no images, or none of them can be decoded.
    """
    if len(images.labels) == 0:
        raise UserError("there are no training images to measure mean and std on; give data.mean and data.std")
    total, squares, count = np.zeros(3), np.zeros(3), 0
    values = np.arange(256) / 255
    for image in _readable(images, limit):
        histogram = np.array(image.histogram(), dtype=np.float64).reshape(
            3, 256
        )  # An array of all values could take gigabytes.
        total += histogram @ values
        squares += histogram @ values**2
        count += image.width * image.height
    if count == 0:
        raise UserError(f"none of the images can be decoded, such as {images.name(0)}; check that these are image files")
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))
    return tuple(mean.round(4).tolist()), tuple(deviation.round(4).tolist())


def _readable(images: ImageSet, limit: int) -> Iterator[Image.Image]:
    """Decodes evenly spaced images and leaves out those that cannot be decoded."""
    for index in evenly_spaced(images, limit):
        try:
            image = decode(images.encoded(index))
        except UNREADABLE:
            continue
        yield image
