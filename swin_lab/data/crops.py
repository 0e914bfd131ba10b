"""Decoding of training images together with their random crop, so that only what the crop needs is decoded.

The crop is drawn from the size in the file's header. A `RegionDecoder` decodes its region only. Where a crop is reduced to half
its size or less anyway, a JPEG can be decoded at a half, a quarter or an eighth of its size.
"""

import random
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_modes_mapping

from swin_lab.data.decoders import RegionDecoder, colour_jpeg_size
from swin_lab.data.decoding import Decoder, Encoded
from swin_lab.data.nvimgcodec import Box
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

    @property
    def box(self) -> Box:
        """Returns left, top, right and bottom, as Pillow takes them."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def is_random_crop(transform: Any) -> bool:
    """Returns whether a transform is timm's RandomResizedCropAndInterpolation or torchvision's v2.RandomResizedCrop."""
    return type(transform) is v2.RandomResizedCrop or type(transform).__name__ == "RandomResizedCropAndInterpolation"


def draw_crop(transform: Any, height: int, width: int) -> Crop:
    """Draws a crop with the random numbers of a random crop, see `is_random_crop`.

    Args:
        transform: the random crop.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    canvas = torch.empty((3, height, width), device="meta")  # Only its shape is used.
    if isinstance(transform, v2.RandomResizedCrop):
        box = transform.make_params([canvas])
        return Crop(box["top"], box["left"], box["height"], box["width"], _filter(transform.interpolation))
    top, left, tall, wide = transform.get_params(canvas, transform.scale, transform.ratio)
    chosen = transform.interpolation
    return Crop(top, left, tall, wide, _filter(random.choice(chosen) if isinstance(chosen, tuple) else chosen))


def crop_decoder(first: Any, decode: Decoder, reduced: bool) -> "CropDecoder | None":
    """Returns the decoder of training images that replaces the first transform, or None if decoding only crops saves nothing.

    Args:
        first: the first transform of the images. If None, there is none.
        decode: the decoder of whole images.
        reduced: whether images are decoded at a fraction of their size where possible, see `CropDecoder`.

    Raises:
        UserError: `reduced`, and the first transform is no random crop.
    """
    if reduced and not is_random_crop(first):
        raise UserError(
            "data.decode_size=crop needs an augmentation that begins with a random resized crop, such as "
            f"augment=imagenet; this one begins with {type(first).__name__}"
        )
    if reduced or (isinstance(decode, RegionDecoder) and is_random_crop(first)):
        return CropDecoder(first, decode, reduced)
    return None


class CropDecoder:
    """Decodes an image, crops it at random and resizes the crop, with the random numbers of a library's transform.

    Args:
        crop: a random crop, see `is_random_crop`.
        decode: the decoder of whole images. If it is a `RegionDecoder`, only the crop of an upright colour JPEG is decoded, to
            the same pixels.
        reduced: whether Pillow decodes an upright colour JPEG at a fraction of its size if both sides of the crop are at least
            twice those of the result, which changes pixels slightly.
    """

    def __init__(self, crop: Any, decode: Decoder, reduced: bool) -> None:
        self.crop = crop
        self.decode = decode
        self.reduced = reduced

    def __call__(self, encoded: Encoded) -> Image.Image:
        height, width = self.crop.size
        if isinstance(encoded, np.ndarray) or (size := colour_jpeg_size(encoded)) is None:
            image = self.decode(encoded)
            drawn = draw_crop(self.crop, image.height, image.width)
            return image.crop(drawn.box).resize((width, height), drawn.filter)
        drawn = draw_crop(self.crop, size[1], size[0])
        factor = next((f for f in FACTORS if drawn.height >= f * height and drawn.width >= f * width), 1)
        if self.reduced and factor > 1:
            return _reduced(encoded, drawn, factor, (width, height))
        if isinstance(self.decode, RegionDecoder):
            return self.decode.region(encoded, drawn.box).resize((width, height), drawn.filter)
        return self.decode(encoded).crop(drawn.box).resize((width, height), drawn.filter)


def _reduced(encoded: bytes, crop: Crop, factor: int, size: tuple[int, int]) -> Image.Image:
    """Decodes a JPEG at a fraction of its size and resizes the crop of it."""
    with Image.open(BytesIO(encoded)) as image:
        image.draft("RGB", (image.width // factor, image.height // factor))
        left, top, right, bottom = (side / factor for side in crop.box)
        return image.resize(size, crop.filter, box=(left, top, min(right, image.width), min(bottom, image.height)))


def _filter(mode: Any) -> Image.Resampling:
    return Image.Resampling(mode if isinstance(mode, int) else pil_modes_mapping[mode])
