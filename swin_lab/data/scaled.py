"""Decoding of JPEGs at a half, a quarter or an eighth of their size, where a random crop is reduced by that much anyway."""

import random
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_modes_mapping

from swin_lab.data.decoding import Decoder, Encoded, is_upright
from swin_lab.errors import UserError

FACTORS = (8, 4, 2)
"""Reductions that a JPEG decoder gets from fewer coefficients of each block of 8x8."""


class Crop(NamedTuple):
    """Describes a random crop of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int
    filter: Image.Resampling


class ScaledCrop:
    """Decodes an image, crops it at random and resizes the crop, with the random numbers of a library's transform.

    The crop is drawn from the size in the file's header. If both of its sides are at least twice those of the result, Pillow
    decodes an upright JPEG at a fraction of its size, which changes pixels slightly; others have the pixels of the transform.

    Raises:
        UserError: the transform is not a random resized crop.

    Args:
        crop: timm's RandomResizedCropAndInterpolation or torchvision's v2.RandomResizedCrop.
        decode: the decoder of whole images.
    """

    def __init__(self, crop: Any, decode: Decoder) -> None:
        if not _is_random_crop(crop):
            raise UserError(
                "data.decode_size=crop needs an augmentation that begins with a random resized crop, such as "
                f"augment=imagenet; this one begins with {type(crop).__name__}"
            )
        self.crop = crop
        self.decode = decode

    def __call__(self, encoded: Encoded) -> Image.Image:
        height, width = self.crop.size
        header = _open_jpeg(encoded)
        if header is None:
            image = self.decode(encoded)
            return _resized(image, self._drawn(image), 1, (width, height))
        with header:
            drawn = self._drawn(header)
            factor = next((f for f in FACTORS if drawn.height >= f * height and drawn.width >= f * width), 1)
            if factor > 1:
                header.draft("RGB", (header.width // factor, header.height // factor))
                header.load()
                return _resized(header, drawn, factor, (width, height))
        return _resized(self.decode(encoded), drawn, 1, (width, height))

    def _drawn(self, image: Image.Image) -> Crop:
        """Draws a crop, of which a transform needs the size of the image only."""
        if isinstance(self.crop, v2.RandomResizedCrop):
            box = self.crop.make_params([image])
            return Crop(box["top"], box["left"], box["height"], box["width"], _filter(self.crop.interpolation))
        top, left, height, width = self.crop.get_params(image, self.crop.scale, self.crop.ratio)
        chosen = self.crop.interpolation
        return Crop(top, left, height, width, _filter(random.choice(chosen) if isinstance(chosen, tuple) else chosen))


def _is_random_crop(transform: Any) -> bool:
    """Returns whether a transform is a random resized crop of timm or torchvision."""
    return type(transform) is v2.RandomResizedCrop or type(transform).__name__ == "RandomResizedCropAndInterpolation"


def _open_jpeg(encoded: Encoded) -> Image.Image | None:
    """Reads the header of an upright JPEG of three channels; returns None for everything else."""
    if isinstance(encoded, np.ndarray) or not encoded.startswith(b"\xff\xd8"):
        return None
    try:
        header = Image.open(BytesIO(encoded))
    except UnidentifiedImageError:
        return None
    return header if header.format == "JPEG" and header.mode == "RGB" and is_upright(header) else None


def _resized(image: Image.Image, crop: Crop, factor: int, size: tuple[int, int]) -> Image.Image:
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    if factor == 1:
        return image.crop(box).resize(size, crop.filter)
    left, top, right, bottom = (side / factor for side in box)
    return image.resize(size, crop.filter, box=(left, top, min(right, image.width), min(bottom, image.height)))


def _filter(mode: Any) -> Image.Resampling:
    return Image.Resampling(mode if isinstance(mode, int) else pil_modes_mapping[mode])
