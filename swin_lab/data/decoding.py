"""Decoding of encoded images with Pillow. Other decoders, in decoders.py, replace `decode`."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from struct import error as StructError

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from swin_lab.preprocessing import Preprocessing

Encoded = bytes | np.ndarray
"""Type of an encoded image: the bytes of an image file, or an RGB array (H, W, 3) of uint8 if there are no bytes."""

Decoder = Callable[[Encoded], Image.Image]
"""Type of functions that decode an image to RGB, or raise one of UNREADABLE."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, StructError, Image.DecompressionBombError)
"""Exceptions of reading and decoding a file that is missing, damaged, truncated or not an image."""


UPRIGHT = 1
"""EXIF orientation of an image that is not to be rotated."""

END_OF_IMAGE = b"\xff\xd9"
"""Marker at the end of a JPEG file."""

SEARCHED_END = 64
"""Number of bytes at the end of a file among which the marker is searched."""


def decoder(preprocessing: Preprocessing) -> Decoder:
    """Returns `decode` for images of this preprocessing, which says whether EXIF orientations are applied."""
    return partial(decode, exif_orientation=preprocessing.exif_orientation)


def decode(encoded: Encoded, exif_orientation: bool = True) -> Image.Image:
    """Decodes an image of any mode as RGB.

    Greyscale of 8 or 16 bits, palettes, alpha (composed on white) and CMYK are handled. An array is wrapped unchanged.

    Args:
        encoded: the bytes of an image file, or an array (H, W, 3) of uint8.
        exif_orientation: whether the image is rotated as its EXIF orientation says, see `Preprocessing`.

    Returns:
        The image in mode RGB.

    Raises:
        one of UNREADABLE: the image cannot be decoded to its last row.
    """
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded)
    try:
        opened = Image.open(BytesIO(encoded))
    except UnidentifiedImageError as error:  # Pillow's message contains the address of the BytesIO, which differs every time
        raise UnidentifiedImageError("the bytes are not an image of a known format") from error
    with opened:
        opened.load()
        check_depth(opened)
        return oriented_rgb(opened, exif_orientation)


def oriented_rgb(image: Image.Image, exif_orientation: bool) -> Image.Image:
    """Rotates an image as its EXIF orientation says, if that is wanted, and converts it to RGB."""
    rotated = exif_orientation and not is_upright(image)
    return to_rgb(ImageOps.exif_transpose(image) if rotated else image)  # which would copy an upright image, too


def is_upright(image: Image.Image) -> bool:
    """Returns whether the EXIF orientation of an image says that it is not to be rotated."""
    return bool(image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) == UPRIGHT)


def has_end(jpeg: bytes) -> bool:
    """Returns whether a JPEG file has its last bytes, which a decoder of a region would not notice if they are below it."""
    return END_OF_IMAGE in jpeg[-SEARCHED_END:]


def check_depth(image: Image.Image) -> None:
    """Raises ValueError for a TIFF of 32-bit integers that fit into 8 bits: nothing says whether white is 255 or 65535."""
    if image.format == "TIFF" and image.mode == "I":
        highest = int(np.asarray(image).max())
        if 0 < highest <= 255:
            raise ValueError(f"32-bit values up to {highest} have no defined white; store 8 or 16 bits")


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to RGB: 16 bits and floats are scaled to 8 bits, transparent pixels are composed on white.

    Raises:
        ValueError: 32-bit integers are not from 0 to 65535, or floats not from 0 to 1.
    """
    if image.mode.startswith("I;16") or image.mode == "I":  # Pillow would clip 16 bits to 8 instead of scaling them
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"32-bit values from {values.min()} to {values.max()} have no defined white; store 8 or 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":  # Pillow would clip floats from 0 to 1 to black
        floats = np.asarray(image)
        if not (floats.min() >= 0 and floats.max() <= 1):
            raise ValueError(
                f"floats from {floats.min():g} to {floats.max():g} have no defined white; store floats from 0 to 1"
            )
        return Image.fromarray((floats * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its type if it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
