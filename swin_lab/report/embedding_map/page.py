"""The data of the map's page."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from swin_lab.errors import printable
from swin_lab.report.html import write_html

ASSETS = tuple(f"embedding_map/{name}" for name in ("page.css", "page.html", "page.js"))
QUALITY = 75
"""Quality of the JPEG files in the page."""


@dataclass(frozen=True)
class Point:
    """Contains an image of the map."""

    x: float
    y: float
    path: str
    label: str | None
    """Name of its class; None if it is unknown."""
    thumbnail: Image.Image | None
    """A small version in RGB; if None, the page shows path and label only."""


def write_map(points: Sequence[Point], file: Path, *, title: str, note: str) -> None:
    """Writes the page. Up to 42 classes have a colour and a shape each; of more, one at a time is emphasised.

    Args:
        points: one per image.
        file: the page; an existing file is replaced.
        title: of the page, such as the name of the file of vectors.
        note: how the map was made.

    Raises:
        UserError: the file cannot be written, or Plotly is not installed.
    """
    names = sorted({point.label for point in points if point.label is not None}, key=_natural)
    positions = {name: position for position, name in enumerate(names)}
    data = {
        "title": title,
        "note": note,
        "classes": [printable(name) for name in names],
        "x": [float(f"{point.x:.5g}") for point in points],
        "y": [float(f"{point.y:.5g}") for point in points],
        "label": [-1 if point.label is None else positions[point.label] for point in points],
        "path": [printable(point.path) for point in points],
        "image": [None if point.thumbnail is None else _encoded(point.thumbnail) for point in points],
    }
    write_html(file, title=title, data=data, assets=ASSETS)


def _natural(name: str) -> list[int | str]:
    """Returns a key that sorts the numbers in names by their values."""
    return [int(part[:18]) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]


def _encoded(image: Image.Image) -> str:
    """Returns the bytes of a JPEG in base64."""
    written = BytesIO()
    image.save(written, "JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(written.getvalue()).decode()
