"""Draws what a network attends to: heat maps on an image, and relative position bias."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from swin_lab.report.figures import write_figure

COLORS = "viridis"
"""Perceptually uniform, legible with every colour vision deficiency and in grey."""
PANEL_WIDTH = 2.7
"""Inches of a heat map with its colour bar."""
TILE = 1.05
"""Inches of the bias of a head."""
TILES_PER_ROW = 12
OPACITY = 0.7
MAX_TITLE = 40
"""Characters of a line of a title."""


@dataclass(frozen=True)
class HeatMap:
    """Describes a map of a network that is drawn on the image."""

    title: str
    values_HW: np.ndarray
    """One value per token."""
    label: str
    """What the values are; label of the colour bar."""
    stride: int
    """Pixels of the image per token along each axis."""
    windows: tuple[tuple[int, int], tuple[int, int]] | None = None
    """Window and shift, as (rows, columns) of tokens, whose borders are drawn."""
    marked: tuple[int, int] | None = None
    """Row and column of a token that is marked."""
    limits: tuple[float, float] | None = None
    """Values of the first and the last colour. If None, the smallest and the largest value."""


@dataclass(frozen=True)
class BiasMaps:
    """Describes the relative position bias of a block."""

    title: str
    bias_hMN: np.ndarray
    """(heads, 2M-1, 2N-1): the bias of every position of a key, for a query in the centre."""
    heads: tuple[int, ...]
    """Number of every head, for its title."""


def draw_attention(image_HWC: np.ndarray, maps: Sequence[HeatMap], file: Path, *, title: str) -> None:
    """Writes a PNG with an image and heat maps on it.

    Args:
        image_HWC: the image as the network sees it, values from 0 to 1, 1 or 3 channels.
        maps: drawn row by row, after the image.
        file: the image file; its folder exists.
        title: above all.

    Raises:
        UserError: the file cannot be written.
    """
    height, width = image_HWC.shape[:2]
    columns = _balanced(len(maps) + 1, 4 if len(maps) < 12 else 6)
    rows = -(-(len(maps) + 1) // columns)
    panel_height = float(np.clip(0.78 * PANEL_WIDTH * height / width, 0.9, 6)) + 0.55
    figure = Figure(figsize=(PANEL_WIDTH * columns, panel_height * rows + 0.35), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_shortened(title, 26 * columns), fontsize=10, parse_math=False)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    axes[0].imshow(np.broadcast_to(image_HWC, (height, width, 3)), extent=(0, width, height, 0), interpolation="nearest")
    axes[0].set_title(f"image, {height} × {width} pixels", fontsize=8)
    grey_HW = 0.45 + 0.55 * image_HWC.mean(axis=2)  # Light, so that the colours of the map remain legible.
    for ax, heat_map in zip(axes[1:], maps, strict=False):
        ax.imshow(grey_HW, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="nearest")
        _draw_heat_map(ax, heat_map, height, width)
    for ax in axes:
        ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    for ax in axes[len(maps) + 1 :]:
        ax.set_axis_off()
    write_figure(figure, file, dpi=110)


def _draw_heat_map(ax: Axes, heat_map: HeatMap, height: int, width: int) -> None:
    (H, W), stride = heat_map.values_HW.shape, heat_map.stride
    low, high = heat_map.limits or (None, None)
    extent = (0, W * stride, H * stride, 0)
    drawn = ax.imshow(
        heat_map.values_HW, cmap=COLORS, vmin=low, vmax=high, extent=extent, alpha=OPACITY, interpolation="nearest"
    )
    if heat_map.windows is not None:
        (M, N), (down, right) = heat_map.windows
        for row in range(down or M, H, M):
            ax.axhline(row * stride, color="white", linewidth=0.9)
        for column in range(right or N, W, N):
            ax.axvline(column * stride, color="white", linewidth=0.9)
    if heat_map.marked is not None:
        y, x = ((index + 0.5) * stride for index in heat_map.marked)
        for color, thickness in (("black", 3.2), ("white", 1.4)):
            ax.plot([x], [y], marker="o", markersize=6, mfc="none", mec=color, mew=thickness)
    ax.set_title("\n".join(_shortened(line, MAX_TITLE) for line in heat_map.title.split("\n")), fontsize=8, parse_math=False)
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.72, aspect=14, pad=0.03)
    bar.set_label(heat_map.label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    bar.ax.locator_params(nbins=5)


def draw_position_bias(blocks: Sequence[BiasMaps], file: Path, *, title: str) -> None:
    """Writes a PNG with the relative position bias of every head of some blocks.

    Args:
        blocks: drawn from top to bottom; the heads of a block share their colours.
        file: the image file; its folder exists.
        title: above all.

    Raises:
        UserError: the file cannot be written.
    """
    columns = max(4, *(_balanced(len(block.heads), TILES_PER_ROW) for block in blocks))
    rows = [-(-len(block.heads) // columns) for block in blocks]
    heights = [TILE * 1.15 * count + 0.75 for count in rows]
    figure = Figure(figsize=(TILE * columns + 1.6, sum(heights) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_shortened(title, 12 * columns), fontsize=10, parse_math=False)
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, block, count in zip(parts, blocks, rows, strict=True):
        _draw_bias(part, block, count, columns)
    write_figure(figure, file, dpi=110)


def _draw_bias(part: SubFigure, block: BiasMaps, rows: int, columns: int) -> None:
    _, height, width = block.bias_hMN.shape
    down, right = height // 2, width // 2
    part.suptitle(block.title, fontsize=9, parse_math=False)
    all_axes = part.subplots(rows, columns, squeeze=False)
    for ax in all_axes.flatten():
        ax.set_axis_off()
    low, high = float(block.bias_hMN.min()), float(block.bias_hMN.max())
    extent = (-right - 0.5, right + 0.5, down + 0.5, -down - 0.5)
    for ax, bias_MN, head in zip(all_axes.flatten(), block.bias_hMN, block.heads, strict=False):
        ax.set_axis_on()
        drawn = ax.imshow(bias_MN, cmap=COLORS, vmin=low, vmax=high, extent=extent, interpolation="nearest")
        ax.set_title(f"head {head}", fontsize=7, pad=2)
        ax.set(xticks=[], yticks=[])
    first = all_axes[0, 0]
    first.set(xticks=sorted({-right, 0, right}), yticks=sorted({-down, 0, down}))
    first.tick_params(labelsize=6, length=2, pad=1)
    first.set_xlabel("columns\nto the right", fontsize=6, labelpad=1)
    first.set_ylabel("rows below", fontsize=6, labelpad=1)
    bar = part.colorbar(drawn, ax=all_axes, shrink=0.9, aspect=14, pad=0.01)
    bar.set_label("added to the logit", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    bar.ax.locator_params(nbins=5)


def _balanced(count: int, most: int) -> int:
    """Returns a number of columns, at most `most`, with which the last row is as full as possible."""
    return -(-count // -(-count // most))


def _shortened(line: str, length: int) -> str:
    return line if len(line) <= length else line[: length - 1] + "…"
