"""Decoding of encoded images, which happens only here. Another decoder replaces `decode`."""

from collections.abc import Callable
from io import BytesIO
from struct import error as StructError

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Encoded = bytes | np.ndarray
"""Type of an encoded image: the bytes of an image file, or an RGB array (H, W, 3) of uint8 if there are no bytes."""

Decoder = Callable[[Encoded], Image.Image]
"""Type of functions that decode an image to RGB, or raise one of UNREADABLE."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, StructError, Image.DecompressionBombError)
"""Exceptions of reading and decoding a file that is missing, damaged, truncated or not an image."""


def decode(encoded: Encoded) -> Image.Image:
    """Decodes an image of any mode as upright RGB.

    Greyscale of 8 or 16 bits, palettes, alpha (composed on white), CMYK and EXIF orientations are handled. An array is wrapped
    unchanged.

    Args:
        encoded: the bytes of an image file, or an array (H, W, 3) of uint8.

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
        upright = ImageOps.exif_transpose(opened)
    return to_rgb(upright)


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to RGB: 16 bits are scaled to 8, and transparent pixels are composed on white."""
    if image.mode.startswith("I;16") or image.mode == "I":  # Pillow would clip 16 bits to 8 instead of scaling them
        high_byte = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its type if it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
