"""Small images for the page, of images that are files of their own."""

from collections.abc import Sequence
from pathlib import Path

from swin_lab.report.html import image_address

SIDE = 64
"""Pixels of the longer side."""
MAX_THUMBNAILS = 60
MAX_BYTES, MAX_PIXELS = 5 * 2**20, 20_000_000
"""Larger images are not decoded."""


def thumbnails(paths: Sequence[str], root: object) -> list[str | None]:
    """Returns images as addresses that contain them; None for later ones, and for those that are no files or cannot be read.

    Args:
        paths: absolute, or relative to the root.
        root: folder of the data set; anything else than a string is none.
    """
    folder = Path(root) if isinstance(root, str) else Path()
    found = [_thumbnail(folder / path) for path in paths[:MAX_THUMBNAILS]]
    return [*found, *([None] * (len(paths) - len(found)))]


def _thumbnail(file: Path) -> str | None:
    from PIL import Image

    try:
        if not file.is_file() or file.stat().st_size > MAX_BYTES:
            return None
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (SIDE, SIDE))
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return image_address(small)
