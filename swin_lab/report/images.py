"""Images with captions in rows, such as the most confident mistakes of a network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from swin_lab.report.contact_sheet import Tile, draw_contact_sheet, fits

COLUMNS = 4


def draw_images(
    images: Sequence[np.ndarray], captions: Sequence[str], file: Path, *, title: str, columns: int = COLUMNS
) -> None:
    """Writes a PNG with images in rows, each above its caption.

    Args:
        images: (H, W, 3) of uint8, of any sizes; one to 400.
        captions: one per image, such as "cat → dog 90%" or "dog 90%"; it may be empty. A long one has up to
            three lines: truth, prediction, probability.
        file: the PNG; its folder exists.
        title: printed above the images.
        columns: number of images in a row at most.

    Raises:
        UserError: the file cannot be written.
    """
    tiles = [Tile(Image.fromarray(pixels), _lines(caption)) for pixels, caption in zip(images, captions, strict=True)]
    draw_contact_sheet([tiles[i : i + columns] for i in range(0, len(tiles), columns)], file, title=title)


def _lines(caption: str) -> list[str]:
    """Returns a caption on lines that fit under an image; the names of classes may still be too long."""
    if not caption or fits(caption):
        return [caption] if caption else []
    truth, arrow, found = caption.rpartition(" → ")
    before = [truth] if arrow else []
    found = f"→ {found}" if arrow else found
    name, _, share = found.rpartition(" ")
    return [*before, found] if fits(found) or not name else [*before, name, share]
