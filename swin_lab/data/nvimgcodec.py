"""Decoding of regions of JPEGs by nvImageCodec, an optional package, with its libjpeg-turbo on the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from swin_lab.errors import UserError

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a region in pixels, as Pillow takes them."""

EXTENSION = "libjpeg_turbo_ext"
"""Name of the library of nvImageCodec that decodes JPEGs on the CPU with libjpeg-turbo, as Pillow does."""


def decode_region(encoded: bytes, box: Box | None) -> Image.Image:
    """Decodes a region of a JPEG of three channels, without applying its EXIF orientation.

    Rows above the region are read but not transformed; columns beside it neither; rows below it are not read.

    Args:
        encoded: the bytes of the file.
        box: the region, within the image. If None, the image is decoded as a whole.

    Returns:
        The image in mode RGB.

    Raises:
        ValueError: libjpeg-turbo cannot decode the region.
    """
    nvimgcodec, decoder, parameters = on_the_host()
    stream = nvimgcodec.CodeStream(encoded)
    if box is not None:
        left, top, right, bottom = box
        stream = stream.get_sub_code_stream(region=nvimgcodec.Region(top, left, bottom, right))
    decoded = decoder.decode(stream, params=parameters)
    if decoded is None:
        raise ValueError("nvImageCodec cannot decode the file")
    return Image.fromarray(np.asarray(decoded))


@cache
def on_the_host() -> tuple[Any, Any, Any]:
    """Returns the package, a decoder on the CPU and its parameters.

    The decoder starts no thread and uses no GPU, so that processes may be forked after it was made.

    Raises:
        UserError: the installed package has no libjpeg-turbo.
    """
    with _one_extension():
        from nvidia import nvimgcodec  # an optional package

    backends = [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)]
    device = nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY
    decoder = nvimgcodec.Decoder(device_id=device, max_num_cpu_threads=1, backends=backends)
    form = nvimgcodec.SampleFormat.I_RGB
    return nvimgcodec, decoder, nvimgcodec.DecodeParams(apply_exif_orientation=False, sample_format=form)


@contextmanager
def _one_extension() -> Iterator[None]:
    """Lets nvImageCodec, which reads two variables when it is imported, load libjpeg-turbo only, and print nothing itself.

    Of its other extensions, that of OpenCV accepts damaged files, and those for GPUs complain if their libraries are missing.
    """
    spec = find_spec("nvidia.nvimgcodec")
    libraries = sorted((Path(spec.origin).parent / "extensions").glob(f"{EXTENSION}.so*")) if spec and spec.origin else []
    if not libraries:
        raise UserError(
            f"data.decoder=nvimgcodec needs {EXTENSION}, which the installed nvImageCodec does not contain\n"
            "Install nvidia-nvimgcodec-cu13>=0.9, or choose data.decoder=simplejpeg"
        )
    with TemporaryDirectory() as folder:
        for library in libraries:
            (Path(folder) / library.name).symlink_to(library)
        wanted = {"NVIMGCODEC_EXTENSIONS_PATH": folder, "PYNVIMGCODEC_VERBOSITY": "0"}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
