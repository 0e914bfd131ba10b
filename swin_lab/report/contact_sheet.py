"""Rows of small images with captions, as one PNG: nearest neighbours, near-duplicates, mistakes of an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import Literal

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from swin_lab.errors import UserError, printable

SIDE, GAP, MARGIN, FRAME = 128, 14, 18, 3
"""Side of an image, distance between two, margin of the sheet, and width of a frame, in pixels."""
OUTER = SIDE + 2 * FRAME
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
    """Lines below the image; what is too long for one is left out at its end."""
    path: str = ""
    """The last line, of which the start is left out."""
    mark: Mark = "plain"

    @property
    def lines(self) -> list[str]:
        """Returns all lines, shortened to the width of the image."""
        captions = [_shortened(printable(caption), at_end=True) for caption in self.captions]
        return [*captions, _shortened(printable(self.path), at_end=False)] if self.path else captions


def draw_contact_sheet(rows: Sequence[Sequence[Tile]], file: Path, *, title: str, note: str = "", across: int = 1) -> None:
    """Writes a PNG with rows of images.

    Args:
        rows: one to MAX_ROWS rows of images; they may have different lengths. Images are scaled to a square: small ones with
            visible pixels, large ones smoothly.
        file: the image; its folder exists.
        title: above the first row.
        note: a line below the title, such as what the frames mean.
        across: number of rows that stand next to each other, for short ones.

    Raises:
        UserError: there are too many rows, or the file cannot be written.
    """
    if len(rows) > MAX_ROWS:
        raise UserError(f"a contact sheet has at most {MAX_ROWS} rows, not {len(rows)}")
    across = min(across, len(rows))
    lines = max(len(tile.lines) for row in rows for tile in row)
    row_height = OUTER + 4 + lines * LINE + GAP
    row_width = max(map(len, rows)) * (OUTER + GAP) + GAP
    heading = [(printable(title), TITLE_SIZE, TEXT)] + [(printable(note), TEXT_SIZE, FAINT)] * bool(note)
    wide = max(ceil(_font(size).getlength(text)) for text, size, _ in heading)
    top = MARGIN + sum(size + 9 for _, size, _ in heading) + 4
    height = top + ceil(len(rows) / across) * row_height - GAP + MARGIN
    sheet = Image.new("RGB", (2 * MARGIN + max(across * row_width - 2 * GAP, wide), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = MARGIN
    for text, size, colour in heading:
        draw.text((MARGIN, y), text, colour, _font(size))
        y += size + 9
    for i, row in enumerate(rows):
        left = MARGIN + (i % across) * row_width
        for j, tile in enumerate(row):
            _draw_tile(sheet, draw, tile, left + j * (OUTER + GAP), top + (i // across) * row_height)
    try:
        sheet.save(file, "PNG")
    except OSError as error:
        raise UserError(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from error


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    draw.rectangle((left, top, left + OUTER - 1, top + OUTER - 1), FRAMES[tile.mark])
    inside = (left + FRAME, top + FRAME, left + FRAME + SIDE - 1, top + FRAME + SIDE - 1)
    draw.rectangle(inside, EMPTY)
    if tile.image is None:
        draw.text((left + OUTER / 2, top + OUTER / 2), "cannot be read", FAINT, _font(TEXT_SIZE), anchor="mm")
    else:
        image = _fitted(tile.image)
        sheet.paste(image, (left + (OUTER - image.width) // 2, top + (OUTER - image.height) // 2))
    for number, text in enumerate(tile.lines):
        draw.text((left, top + OUTER + 4 + number * LINE), text, FAINT if number else TEXT, _font(TEXT_SIZE))


def _fitted(image: Image.Image) -> Image.Image:
    """Returns an image whose longer side is SIDE: pixels of small ones remain squares."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def fits(text: str) -> bool:
    """Returns whether a text is not wider than an image with its frame."""
    return _font(TEXT_SIZE).getlength(text) <= OUTER


def _shortened(text: str, *, at_end: bool) -> str:
    """Returns the start or the end of a text that fits under an image."""
    if fits(text):
        return text
    candidates = (f"{text[:-i]}…" if at_end else f"…{text[i:]}" for i in range(1, len(text) + 1))
    return next(candidate for candidate in candidates if fits(candidate))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Returns the font of matplotlib's figures, which has the letters of most alphabets."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
