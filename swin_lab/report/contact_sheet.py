"""Rows of small images with captions, as one PNG: nearest neighbours, near-duplicates, the worst images of an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from swin_lab.errors import UserError, printable

SIDE, GAP, MARGIN, FRAME = 128, 14, 18, 3
"""Side of an image, distance between two, margin of the sheet, and width of a frame, in pixels."""
TEXT_SIZE, TITLE_SIZE, LINE = 12, 17, 16
MAX_ROWS = 100
"""Rows of a sheet at most: more are no longer looked at, and a PNG cannot be of any height."""

Mark = Literal["plain", "query", "same", "other"]
FRAMES: dict[Mark, str] = {"plain": "#ffffff", "query": "#222222", "same": "#0072b2", "other": "#d55e00"}
"""Colours of frames: those of "same" and "other" are blue and vermilion, which the colour-blind distinguish."""
TEXT, FAINT, EMPTY, PAPER = "#222222", "#666666", "#e4e4e4", "#ffffff"


@dataclass(frozen=True)
class Tile:
    """Contains an image of a sheet."""

    image: Image.Image | None
    """If None, it could not be read, and an empty square is drawn."""
    captions: Sequence[str]
    """Lines below the image; what is too long for a line is left out at the start, where paths are alike."""
    mark: Mark = "plain"


def draw_contact_sheet(rows: Sequence[Sequence[Tile]], file: Path, *, title: str, note: str = "") -> None:
    """Writes a PNG with one row of images under another.

    Args:
        rows: one to MAX_ROWS rows of images; they may have different lengths. Images are scaled to a square: small ones with
            visible pixels, large ones smoothly.
        file: the image; its folder exists.
        title: above the first row.
        note: a line below the title, such as what the frames mean.

    Raises:
        UserError: there are too many rows, or the file cannot be written.
    """
    if len(rows) > MAX_ROWS:
        raise UserError(f"a contact sheet has at most {MAX_ROWS} rows, not {len(rows)}")
    heading = [(title, TITLE_SIZE, TEXT)] + [(note, TEXT_SIZE, FAINT)] * bool(note)
    lines = max(len(tile.captions) for row in rows for tile in row)
    row_height = SIDE + 2 * FRAME + 4 + lines * LINE + GAP
    columns = max(map(len, rows))
    wide = max(round(_font(size).getlength(text)) for text, size, _ in heading)
    width = 2 * MARGIN + max(columns * (SIDE + 2 * FRAME + GAP) - GAP, wide)
    top = MARGIN + sum(size + 9 for _, size, _ in heading) + 4
    sheet = Image.new("RGB", (width, top + len(rows) * row_height - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = MARGIN
    for text, size, colour in heading:
        draw.text((MARGIN, y), printable(text), colour, _font(size))
        y += size + 9
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            _draw_tile(sheet, draw, tile, MARGIN + j * (SIDE + 2 * FRAME + GAP), top + i * row_height)
    try:
        sheet.save(file, "PNG")
    except OSError as error:
        raise UserError(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from error


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    outer = SIDE + 2 * FRAME
    draw.rectangle((left, top, left + outer - 1, top + outer - 1), FRAMES[tile.mark])
    inside = (left + FRAME, top + FRAME, left + FRAME + SIDE - 1, top + FRAME + SIDE - 1)
    draw.rectangle(inside, EMPTY)
    if tile.image is None:
        draw.text((left + outer / 2, top + outer / 2), "cannot be read", FAINT, _font(TEXT_SIZE), anchor="mm")
    else:
        image = _fitted(tile.image)
        sheet.paste(image, (left + (outer - image.width) // 2, top + (outer - image.height) // 2))
    for number, text in enumerate(tile.captions):
        colour = TEXT if number == 0 else FAINT
        draw.text((left, top + outer + 4 + number * LINE), _shortened(printable(text), outer), colour, _font(TEXT_SIZE))


def _fitted(image: Image.Image) -> Image.Image:
    """Returns an image whose longer side is SIDE: pixels of small ones remain squares."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _shortened(text: str, width: float) -> str:
    """Returns the end of a text that is not wider than a number of pixels."""
    font = _font(TEXT_SIZE)
    if font.getlength(text) <= width:
        return text
    start = next(i for i in range(1, len(text) + 1) if font.getlength(f"…{text[i:]}") <= width)
    return f"…{text[start:]}"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Returns the font of matplotlib's figures, which has the letters of most alphabets."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
