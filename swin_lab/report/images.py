"""Images with captions in a grid, such as the most confident mistakes of a network."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swin_lab.errors import UserError

COLUMNS = 4
SIDE, GAP = 192, 12
"""Pixels of an image in the grid, and between two."""
LINE = 20
"""Pixels of a line of text."""
TEXT_SIZE = 14


def draw_images(
    images: Sequence[np.ndarray], captions: Sequence[str], file: Path, *, title: str, columns: int = COLUMNS
) -> None:
    """Writes a PNG with images in rows, each above its caption.

    Args:
        images: (H, W, 3) of uint8, of any sizes; they are scaled to the same one.
        captions: one per image, which may be empty; one that is too long for a line ends its first one after an arrow.
        file: the PNG; its folder exists.
        title: printed above the grid.
        columns: number of images in a row at most.

    Raises:
        UserError: the file cannot be written.
    """
    columns = min(columns, len(images))
    text_height = 2 * LINE + 4 if any(captions) else 0
    width = max(columns * (SIDE + GAP) + GAP, round(_font().getlength(title)) + 2 * GAP)
    top = LINE + 2 * GAP
    height = top + -(-len(images) // columns) * (SIDE + text_height + GAP)
    grid = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(grid)
    draw.text((GAP, GAP), title, "black", _font())
    for position, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(position, columns)
        left, upper = GAP + column * (SIDE + GAP), top + row * (SIDE + text_height + GAP)
        image = _fitted(Image.fromarray(pixels))
        grid.paste(image, (left + (SIDE - image.width) // 2, upper + (SIDE - image.height) // 2))
        for line, text in enumerate(_lines(caption)):
            draw.text((left + SIDE // 2, upper + SIDE + 4 + line * LINE), text, "black", _font(), anchor="ma")
    try:
        grid.save(file)
    except OSError as error:
        raise UserError(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from error


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Returns the font of the plots, which has arrows and the letters of many languages."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), TEXT_SIZE)


def _fitted(image: Image.Image) -> Image.Image:
    """Scales an image so that its longer side is SIDE; the pixels of a small one remain visible."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC)


def _lines(caption: str) -> list[str]:
    """Returns a caption on at most two lines that fit under an image."""
    if _font().getlength(caption) <= SIDE:
        return [caption]
    before, arrow, after = caption.partition(" → ")
    if not arrow:
        before, _, after = caption.rpartition(" ")
        return [_cut(before, ""), after] if before else [_cut(caption, "")]
    name, _, share = after.rpartition(" ")
    return [_cut(before, " →"), _cut(name, f" {share}")]


def _cut(text: str, end: str) -> str:
    """Returns a text with an end that fits under an image; letters before the end are left out."""
    if _font().getlength(text + end) <= SIDE:
        return text + end
    while text and _font().getlength(f"{text}…{end}") > SIDE:
        text = text[:-1]
    return f"{text.rstrip()}…{end}"
