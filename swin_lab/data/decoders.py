"""Faster decoders of JPEG files, from optional packages. They decode with libjpeg-turbo, as Pillow does, to the same pixels."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, UnidentifiedImageError

from swin_lab.data import nvimgcodec
from swin_lab.data.decoding import Decoder, Encoded, decode, decoder, has_end, is_upright
from swin_lab.data.nvimgcodec import Box
from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing

DecoderName = Literal["pillow", "simplejpeg", "torchcodec", "nvimgcodec"]

PACKAGES = {
    "simplejpeg": ("simplejpeg", ["simplejpeg"]),
    "torchcodec": ("torchcodec", ["torchcodec"]),
    "nvimgcodec": ("nvidia-nvimgcodec-cu13 (Linux only)", ["nvidia", "nvidia.nvimgcodec"]),
}
"""What a decoder needs: the name of the package, and its module after the packages that contain it."""


def build_decoder(preprocessing: Preprocessing, name: DecoderName = "pillow") -> Decoder:
    """Returns the decoder of a name for images of this preprocessing, which says whether EXIF orientations are applied.

    Raises:
        UserError: its package is not installed.
    """
    check_installed(name)
    exif_orientation = preprocessing.exif_orientation
    if name == "pillow":
        return decoder(preprocessing)
    if name == "nvimgcodec":
        nvimgcodec.on_the_host()  # An installation that does not work raises its error here.
        return RegionDecoder(nvimgcodec.decode_region, exif_orientation)
    return JpegDecoder(_simplejpeg() if name == "simplejpeg" else _torchcodec(), exif_orientation)


def check_installed(name: DecoderName) -> None:
    """Raises UserError if the package of a decoder is not installed."""
    if name == "pillow":
        return
    package, modules = PACKAGES[name]
    if not hasattr(Image, "fromarrow") or any(find_spec(module) is None for module in modules):
        raise UserError(
            f"data.decoder={name} needs {package} and pillow>=11.3: pip install 'swin-lab[decoders]'\n"
            "Or set data.decoder=pillow"
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
        if not isinstance(encoded, np.ndarray) and colour_jpeg_size(encoded) is not None:
            try:
                return self.colour_image(encoded)
            except (ValueError, RuntimeError):
                pass
        return decode(encoded, self.exif_orientation)


class RegionDecoder(JpegDecoder):
    """Decodes whole images as `JpegDecoder` does, and regions of JPEGs without what is outside.

    Args:
        colour_region: bytes of a JPEG of three channels, and a region of it; if None, the whole -> image in mode RGB. It raises
            ValueError or RuntimeError for a file that is damaged in the region.
        exif_orientation: whether the image is rotated as its EXIF orientation says.
    """

    def __init__(self, colour_region: Callable[[bytes, Box | None], Image.Image], exif_orientation: bool) -> None:
        super().__init__(partial(colour_region, box=None), exif_orientation)  # type: ignore[call-arg]
        self.colour_region = colour_region

    def region(self, encoded: bytes, box: Box) -> Image.Image:
        """Returns a region of an image for which `colour_jpeg_size` returns a size.

        A truncated file is unreadable wherever the region is. Other damage outside of the region may not be noticed.

        Raises:
            one of UNREADABLE: the file is truncated, or damaged in the region.
        """
        if has_end(encoded):
            try:
                return self.colour_region(encoded, box)
            except (ValueError, RuntimeError):
                pass
        return self(encoded).crop(box)


START_OF_SCAN, APP1, NOT_FRAMES = 0xDA, 0xE1, (0xC4, 0xC8, 0xCC)
"""Markers (ITU-T T.81, table B.1): before the data, of EXIF and XMP, and those from 0xC0 to 0xCF that start no frame."""


def colour_jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Returns width and height of a JPEG of three channels that is not to be rotated; None for every other file."""
    return (_plain_size(encoded) or _upright_colour_size(encoded)) if encoded.startswith(b"\xff\xd8") else None


def _plain_size(encoded: bytes) -> tuple[int, int] | None:
    """Returns the size of a JPEG if by its markers, it surely has three channels of 8 bits, a usual size, and no EXIF or XMP.

    That takes a tenth of the time in which Pillow reads a header.
    """
    position, size = 2, None
    while position + 9 < len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker in (APP1, 0xFF):  # 0xFF is a fill byte
            return None
        if marker == START_OF_SCAN:
            return size
        if 0xC0 <= marker <= 0xCF and marker not in NOT_FRAMES:
            height, width = (int.from_bytes(encoded[position + at : position + at + 2]) for at in (5, 7))
            usual = 0 < height * width <= (Image.MAX_IMAGE_PIXELS or 0)
            if encoded[position + 4] != 8 or encoded[position + 9] != 3 or not usual:
                return None
            size = (width, height)
        position += 2 + int.from_bytes(encoded[position + 2 : position + 4])
    return None


def _upright_colour_size(encoded: bytes) -> tuple[int, int] | None:
    """Returns the size of a JPEG of three channels that is not to be rotated, by Pillow."""
    try:
        with Image.open(BytesIO(encoded)) as header:
            return header.size if header.format == "JPEG" and header.mode == "RGB" and is_upright(header) else None
    except UnidentifiedImageError:
        return None


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
