"""Images in rows and columns, such as original, masked and reconstructed ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swin_lab.report.figures import write_figure

INCHES = 1.6
"""Width of an image."""


def draw_grid(images: np.ndarray, column_labels: Sequence[str], file: Path) -> None:
    """Writes a PNG with images in rows and columns.

    Args:
        images: (rows, columns, H, W, channels) of uint8, with 1 or 3 channels.
        column_labels: one label per column.
        file: the PNG; its folder exists.
    """
    rows, columns, height, width, channels = images.shape
    figure = Figure(figsize=(INCHES * columns, INCHES * height / width * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(rows, columns, squeeze=False)
    for axes_of_row, images_of_row in zip(all_axes, images, strict=True):
        for axes, image in zip(axes_of_row, images_of_row, strict=True):
            axes.set_axis_off()
            axes.imshow(np.broadcast_to(image, (height, width, 3)) if channels == 1 else image, interpolation="nearest")
    for axes, label in zip(all_axes[0], column_labels, strict=True):
        axes.set_title(label, fontsize=9, parse_math=False)
    write_figure(figure, file, dpi=100)
