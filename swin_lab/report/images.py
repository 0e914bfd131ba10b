"""Images with captions in a grid, such as the most confident mistakes of a network."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swin_lab.report.figures import write_figure

COLUMNS = 4
INCHES = 1.9
"""Width of an image in the grid."""
CHARACTERS = 24
"""Length of a line of a caption, of which there are two at most."""


def draw_images(images: Sequence[np.ndarray], captions: Sequence[str], file: Path, *, title: str) -> None:
    """Writes a PNG with images in rows of four, each above its caption.

    Args:
        images: (H, W, 3) of uint8, of any sizes.
        captions: one per image, which may be empty.
        file: the PNG; its folder exists.
        title: printed above the grid.
    """
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    height = INCHES + (0.36 if any(captions) else 0.05)
    figure = Figure(figsize=(max(INCHES * columns, 4.2), height * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", parse_math=False)
    all_axes = figure.subplots(rows, columns, squeeze=False).flat
    for axes in all_axes:
        axes.set_axis_off()
    for axes, image, caption in zip(all_axes, images, captions, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(_two_lines(caption), y=0, pad=-4, va="top", fontsize=8, parse_math=False)
    write_figure(figure, file, dpi=110)


def _two_lines(caption: str) -> str:
    """Returns a caption on two lines at most: long names are cut, and a line ends after an arrow."""
    before, arrow, after = caption.partition("→ ")
    if len(caption) <= CHARACTERS or not arrow:
        return shorten(caption, 2 * CHARACTERS, placeholder="…")
    name, _, share = after.rpartition(" ")
    first = shorten(before.strip(), CHARACTERS - 2, placeholder="…")
    return f"{first} →\n{shorten(name, CHARACTERS - 5, placeholder='…')} {share}"
