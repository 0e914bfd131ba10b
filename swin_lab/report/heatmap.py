"""A matrix of counts as an image, such as a confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swin_lab.report.figures import write_figure

MAX_NAMED_ROWS = 40
"""Number of rows above which the axes have no names."""
MAX_NUMBERED_ROWS = 20
"""Number of rows above which the cells have no numbers."""


def draw_heatmap(counts: np.ndarray, names: Sequence[str], file: Path, *, row: str, column: str) -> None:
    """Writes a PNG in which every row is scaled to a sum of 1.

    Args:
        counts: (N, N), [row, column].
        names: one name per row and column.
        file: the image; its folder exists.
        row: label of the vertical axis.
        column: label of the horizontal axis.
    """
    size = len(names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.5 + 0.32 * size, 4.5, 14))
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel=column, ylabel=row, title=f"{int(counts.sum())} images, rows sum to 1")
    if size <= MAX_NAMED_ROWS:
        rotation = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(size), names, parse_math=False, rotation=rotation)
        axes.set_yticks(range(size), names, parse_math=False)
    if size <= MAX_NUMBERED_ROWS:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.8)
    write_figure(figure, file, dpi=120)
