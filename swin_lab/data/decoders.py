"""Faster decoders of JPEG files, from optional packages. They decode with libjpeg-turbo, as Pillow does, to the same pixels."""

from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, UnidentifiedImageError

from swin_lab.data.decoding import Decoder, Encoded, decode, decoder, is_upright
from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing

DecoderName = Literal["pillow", "simplejpeg", "torchcodec"]


def build_decoder(preprocessing: Preprocessing, name: DecoderName = "pillow") -> Decoder:
    """Returns the decoder of a name for images of this preprocessing, which says whether EXIF orientations are applied.

    Raises:
        UserError: its package is not installed.
    """
    check_installed(name)
    if name == "pillow":
        return decoder(preprocessing)
    return JpegDecoder({"simplejpeg": _simplejpeg, "torchcodec": _torchcodec}[name](), preprocessing.exif_orientation)


def check_installed(name: DecoderName) -> None:
    """Raises UserError if the package of a decoder is not installed."""
    if name != "pillow" and (find_spec(name) is None or not hasattr(Image, "fromarrow")):
        raise UserError(
            f"data.decoder={name} needs {name} and pillow>=11.3: pip install 'swin-lab[decoders]'; or set data.decoder=pillow"
        )


class JpegDecoder:
    """Decodes upright JPEGs of three channels with a given function, and every other file with `decode`, that is with Pillow.

    Pillow decodes a file that the function refuses as well: greyscale, CMYK, rotated, truncated and damaged files give the same
    image, or the same error, as with `decode`.

    Args:
        colour_image: bytes of a JPEG of three channels -> image in mode RGB. It raises ValueError or RuntimeError for a damaged
            file. Some of these functions apply the EXIF orientation, some do not.
        exif_orientation: whether the image is rotated as its EXIF orientation says.
    """

    def __init__(self, colour_image: Callable[[bytes], Image.Image], exif_orientation: bool) -> None:
        self.colour_image = colour_image
        self.exif_orientation = exif_orientation

    def __call__(self, encoded: Encoded) -> Image.Image:
        if isinstance(encoded, np.ndarray) or not encoded.startswith(b"\xff\xd8"):
            return decode(encoded, self.exif_orientation)
        if _is_plain(encoded) or _is_upright_colour(encoded):
            try:
                return self.colour_image(encoded)
            except (ValueError, RuntimeError):
                pass
        return decode(encoded, self.exif_orientation)


START_OF_SCAN, APP1, NOT_FRAMES = 0xDA, 0xE1, (0xC4, 0xC8, 0xCC)
"""Markers (ITU-T T.81, table B.1): before the data, of EXIF and XMP, and those from 0xC0 to 0xCF that start no frame."""


def _is_plain(encoded: bytes) -> bool:
    """Returns whether a JPEG surely has three channels of 8 bits, a usual size, and no EXIF or XMP, by its markers.

    That takes a tenth of the time in which Pillow reads a header.
    """
    position, has_frame = 2, False
    while position + 9 < len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker in (APP1, 0xFF):  # 0xFF is a fill byte
            return False
        if marker == START_OF_SCAN:
            return has_frame
        if 0xC0 <= marker <= 0xCF and marker not in NOT_FRAMES:
            height, width = (int.from_bytes(encoded[position + at : position + at + 2]) for at in (5, 7))
            if encoded[position + 4] != 8 or encoded[position + 9] != 3 or height * width > (Image.MAX_IMAGE_PIXELS or 0):
                return False
            has_frame = True
        position += 2 + int.from_bytes(encoded[position + 2 : position + 4])
    return False


def _is_upright_colour(encoded: bytes) -> bool:
    """Returns whether a file is a JPEG of three channels that is not to be rotated, by Pillow."""
    try:
        with Image.open(BytesIO(encoded)) as header:
            return header.format == "JPEG" and header.mode == "RGB" and is_upright(header)
    except UnidentifiedImageError:
        return False


def _simplejpeg() -> Callable[[bytes], Image.Image]:
    from simplejpeg import decode_jpeg  # an optional package

    def colour_image(encoded: bytes) -> Image.Image:
        return image_of(decode_jpeg(encoded, colorspace="RGBX"))  # Pillow's own layout of RGB

    return colour_image


def _torchcodec() -> Callable[[bytes], Image.Image]:
    from torchcodec.decoders import decode_jpeg  # an optional package

    def colour_image(encoded: bytes) -> Image.Image:
        pixels = decode_jpeg(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())

    return colour_image


def image_of(pixels_HW4: np.ndarray) -> Image.Image:
    """Returns an RGB image that shares the memory of pixels (H, W, 4), of which the fourth value is not used."""
    height, width, _ = pixels_HW4.shape
    rows = pa.FixedSizeListArray.from_arrays(pa.array(pixels_HW4.reshape(-1)), 4)
    return Image.fromarrow(rows, "RGB", (width, height))
