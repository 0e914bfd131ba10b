"""What every source of images gives: two sets of labelled images, and how one image becomes RGB."""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from struct import error as StructError
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from swin_lab.errors import UserError

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, StructError, Image.DecompressionBombError)
"""What Pillow raises for a file that is damaged, truncated or no image at all."""


class ImageSet(Protocol):
    """Labelled images by index."""

    @property
    def labels(self) -> Sequence[int] | np.ndarray:
        """Class index of every image."""

    def image(self, index: int) -> Image.Image:
        """One image, RGB; raises one of UNREADABLE if its file cannot be decoded."""

    def name(self, index: int) -> str:
        """What a message calls this image: its path where it has one."""


class ImageSource(Protocol):
    """A data set: what `data=` chooses."""

    class_names: list[str]
    train: ImageSet
    val: ImageSet


class ArrayImages:
    """Images that are in memory.

    Args:
        images: (N, height, width, 3) of uint8.
        labels: (N,) class indices.
        origin: what messages call the set.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, origin: str) -> None:
        self.images = images
        self.labels = labels
        self.origin = origin

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index])

    def name(self, index: int) -> str:
        return f"{self.origin}[{index}]"


NO_IMAGES: ImageSet = ArrayImages(np.empty((0, 1, 1, 3), dtype=np.uint8), np.empty(0, dtype=np.int64), "no images")
"""The training set of a source that is only evaluated."""


def open_rgb(file: Path | bytes) -> Image.Image:
    """Decodes an image of any mode as upright RGB: grey of 8 or 16 bits, palette, alpha (on white), CMYK, EXIF rotation.

    Raises:
        one of UNREADABLE if it cannot be decoded to its last row.
    """
    with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as opened:
        opened.load()
        upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16") or upright.mode == "I":  # Pillow would clip 16 bits to 8, not scale them
        high_byte = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if upright.has_transparency_data:
        image = upright.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return upright.convert("RGB")


def cached_in_memory(images: ImageSet, max_mib: int) -> ImageSet:
    """The same images in memory, if they are all of one size, can all be read and need no more memory than that.

    Args:
        images: any set.
        max_mib: the limit in MiB.
    """
    count = len(images.labels)
    if count == 0 or isinstance(images, ArrayImages):
        return images
    try:
        first = images.image(0)
        if count * first.width * first.height * 3 > max_mib * 2**20:
            return images
        pixels_NHWC = np.empty((count, first.height, first.width, 3), dtype=np.uint8)
        for index in range(count):
            image = images.image(index)
            if image.size != first.size:
                return images
            pixels_NHWC[index] = np.asarray(image)
    except UNREADABLE:  # it is named when it is its turn
        return images
    return CachedImages(pixels_NHWC, images)


class CachedImages(ArrayImages):
    """Images in memory that keep the names they have where they are from."""

    def __init__(self, images: np.ndarray, origin: ImageSet) -> None:
        super().__init__(images, np.asarray(origin.labels), "")
        self.name = origin.name  # type: ignore[method-assign]


def split_by_class(labels: Sequence[int] | np.ndarray, val_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits indices into a training and a validation part, each class in the same proportion.

    Returns:
        (training indices, validation indices), each sorted.

    Raises:
        UserError: the fraction is not between 0 and 1, or a class is too small for it.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < val_fraction < 1:
        raise UserError(f"data.val_fraction={val_fraction} is no part of the images; give a number between 0 and 1")
    indices = np.arange(len(labels))
    try:
        train, val = train_test_split(indices, test_size=val_fraction, random_state=seed, stratify=np.asarray(labels))
    except ValueError as error:
        raise UserError(
            f"{len(labels)} images cannot be split with data.val_fraction={val_fraction}: {error} "
            "Give a val/ folder beside train/, or more images per class."
        ) from error
    return np.sort(train), np.sort(val)


def fingerprint(images: ImageSet) -> str:
    """A short name of a set: of its labels, the names of up to 1,000 images and the content of up to 32."""
    digest = hashlib.sha256(np.asarray(images.labels, dtype=np.int64).tobytes())
    for index in np.linspace(0, len(images.labels) - 1, num=min(len(images.labels), 1000), dtype=int):
        digest.update(Path(images.name(int(index))).name.encode())
    for index in np.linspace(0, len(images.labels) - 1, num=min(len(images.labels), 32), dtype=int):
        try:
            digest.update(images.image(int(index)).tobytes())
        except UNREADABLE:
            continue
    return digest.hexdigest()[:16]


def channel_statistics(images: ImageSet, limit: int = 500) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the red, green and blue values (0 to 1) of up to `limit` evenly spaced readable images.

    Raises:
        UserError: none of them can be read.
    """
    if len(images.labels) == 0:
        raise UserError("there are no training images to measure mean and std on; give data.mean and data.std")
    total, squares, count = np.zeros(3), np.zeros(3), 0
    for index in np.linspace(0, len(images.labels) - 1, num=min(limit, len(images.labels)), dtype=int):
        try:
            values = np.asarray(images.image(int(index)), dtype=np.float64).reshape(-1, 3) / 255
        except UNREADABLE:
            continue
        total += values.sum(axis=0)
        squares += (values**2).sum(axis=0)
        count += len(values)
    if count == 0:
        raise UserError(f"no image can be read, the first is {images.name(0)}; are these image files?")
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))
    return tuple(mean.round(4).tolist()), tuple(deviation.round(4).tolist())
