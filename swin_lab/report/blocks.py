"""Panels (b) and (c) of the architecture figure: blocks in detail, and how windows shift. Lengths are pixels; y points down."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, Rectangle

from swin_lab.report.pens import (
    CHANGE,
    GREY,
    INK,
    LINE,
    NEUTRAL,
    PALE,
    REGULAR,
    SHIFTED,
    Point,
    arrow,
    box,
    show,
    text,
    tint,
)

GRID = 146
"""Side of a map in panel (c)."""


@dataclass(frozen=True)
class BlockDrawing:
    """Describes a block."""

    shifted: bool
    """Whether its windows are shifted."""
    branches: tuple[tuple[str, ...], ...]
    """Names of its layers in the order they run, for each residual branch: norm1, attn, norm2, mlp."""
    mixer: str
    """What combines the tokens of a window: MSA, or MLP in Swin-MLP."""


def color_of(shifted: bool) -> str:
    """Returns the colour of an attention or a window MLP."""
    return SHIFTED if shifted else REGULAR


def mixer_name(mixer: str, shifted: bool) -> str:
    """Returns the name of an attention, such as SW-MSA, or of a window MLP."""
    return f"{'SW' if shifted else 'W'}-{mixer}"


# Panel (b)


def draw_block_pair(ax: Axes, blocks: Sequence[BlockDrawing], left: float, top: float) -> None:
    """Draws one or two blocks in a row, with their residual connections, into a panel 316 wide."""
    top, pitch = top + 50, 150
    first, link = left + 84, left + 84 + 73
    last, end = first + pitch * (len(blocks) - 1), top
    text(ax, first + 14, top - 2, r"$z^{\ell-1}$", 12, ha="left")
    for i, block in enumerate(blocks):
        end = _draw_block(ax, block, first + pitch * i, top, r"\ell" if i == 0 else r"\ell+1")
    if len(blocks) > 1:
        x, y = [first, first, link, link, last, last], [end, end + 14, end + 14, top, top, top + 8]
        ax.plot(x, y, color=LINE, lw=1.2)
    arrow(ax, (last, end), (last, end + 20))


def _draw_block(ax: Axes, block: BlockDrawing, x: float, y: float, index: str) -> float:
    """Draws a block downwards from `y`, branch by branch, each with its residual connection. Returns the y at which it ends."""
    for branch, parts in enumerate(block.branches):
        leaves_at, box_top = y + 9, y + 25
        for part in parts:
            arrow(ax, (x, y), (x, box_top))
            fill, edge = _paint_of(block, part)
            box(ax, x - 44, box_top, 88, 28, fill=fill, edge=edge)
            text(ax, x, box_top + 14, _label_of(block, part), 11, weight="bold" if part == "attn" else "normal")
            y, box_top = box_top + 28, box_top + 42
        plus = y + 22
        arrow(ax, (x, y), (x, plus - 8))
        ax.plot([x, x - 60, x - 60, x - 16], [leaves_at, leaves_at, plus, plus], color=LINE, lw=1.2)
        arrow(ax, (x - 20, plus), (x - 8, plus))
        _draw_sum(ax, (x, plus))
        symbol = "z" if branch == len(block.branches) - 1 else r"\hat{z}"
        text(ax, x + 14, plus, f"${symbol}^{{{index}}}$", 12, ha="left")
        y = plus + 8
    return y


def _draw_sum(ax: Axes, centre: Point) -> None:
    x, y = centre
    ax.add_patch(Circle(centre, 8, fc="white", ec=INK, lw=1.1))
    ax.plot([x - 4, x + 4], [y, y], color=INK, lw=1.1)
    ax.plot([x, x], [y - 4, y + 4], color=INK, lw=1.1)


def _label_of(block: BlockDrawing, part: str) -> str:
    names = {"norm1": "LayerNorm", "norm2": "LayerNorm", "mlp": "MLP", "attn": mixer_name(block.mixer, block.shifted)}
    return names.get(part, part)


def _paint_of(block: BlockDrawing, part: str) -> tuple[str, str]:
    """Returns the colours of fill and edge."""
    if part == "attn":
        return tint(color_of(block.shifted), 0.3), color_of(block.shifted)
    return tint(NEUTRAL, 0.12 if part.startswith("norm") else 0.32), NEUTRAL


# Panel (c)


def draw_shift(
    ax: Axes,
    rolled_HW: np.ndarray,
    window: tuple[int, int],
    shift: tuple[int, int],
    *,
    left: float,
    right: float,
    top: float,
) -> None:
    """Draws regular windows, shifted ones, the map after the cyclic shift, and the attention masks of its windows.

    Args:
        ax: the axes.
        rolled_HW: the region of every token after the cyclic shift.
        window: rows and columns.
        shift: rows and columns.
        left: edge of the drawing.
        right: edge of the drawing.
        top: upper edge of the panel, whose title is above the drawing.
    """
    rows, columns = (length // side for length, side in zip(rolled_HW.shape, window, strict=True))
    windows_GT = rolled_HW.reshape(rows, window[0], columns, window[1]).swapaxes(1, 2).reshape(rows * columns, -1)
    colors = _region_colors(windows_GT)
    lefts, grid_top = np.linspace(left, right - GRID, 3).tolist(), top + 82
    whole, unrolled = np.zeros_like(rolled_HW), np.roll(rolled_HW, shift, axis=(0, 1))
    moved = f"moved by {shift[0]} × {shift[1]} tokens"
    _draw_grid(ax, lefts[0], grid_top, whole, {0: tint(REGULAR, 0.3)}, window, (0, 0), REGULAR)
    _draw_grid(ax, lefts[1], grid_top, unrolled, colors, window, shift, SHIFTED)
    _draw_grid(ax, lefts[2], grid_top, rolled_HW, colors, window, (0, 0), INK)
    headings = [("W-MSA", "regular windows", REGULAR), ("SW-MSA", moved, SHIFTED), ("Cyclic shift", "whole windows again", INK)]
    _draw_headings(ax, headings, lefts, grid_top)
    _draw_masks(ax, left, right, grid_top + GRID + 20, windows_GT, colors)


def draw_padding(
    ax: Axes,
    is_token_HW: np.ndarray,
    map_size: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
    *,
    left: float,
    right: float,
    top: float,
) -> None:
    """Draws regular windows, shifted ones, and the map with the zeros that complete these, as in Swin-MLP.

    Args:
        ax: the axes.
        is_token_HW: for every place of the padded map whether it is a token.
        map_size: rows and columns without padding.
        window: rows and columns.
        shift: rows and columns.
        left: edge of the drawing.
        right: edge of the drawing.
        top: upper edge of the panel, whose title is above the drawing.
    """
    lefts, grid_top = np.linspace(left, right - GRID, 3).tolist(), top + 82
    whole = np.ones(map_size, int)
    _draw_grid(ax, lefts[0], grid_top, whole, {1: tint(REGULAR, 0.3)}, window, (0, 0), REGULAR)
    _draw_grid(ax, lefts[1], grid_top, whole, {1: tint(SHIFTED, 0.3)}, window, shift, SHIFTED)
    _draw_grid(ax, lefts[2], grid_top, is_token_HW, {0: "white", 1: tint(SHIFTED, 0.3)}, window, (0, 0), INK, named=False)
    moved = f"moved by {shift[0]} × {shift[1]} tokens"
    headings = [
        ("W-MLP", "regular windows", REGULAR),
        ("SW-MLP", moved, SHIFTED),
        ("Padding", "zeros complete the windows", INK),
    ]
    _draw_headings(ax, headings, lefts, grid_top)
    below, tokens = grid_top + GRID + 20, window[0] * window[1]
    text(ax, left, below + 10, "Weights", 12, ha="left", weight="bold")
    note = (
        f"of each head: {tokens} × {tokens}, the same in all windows and for all images. Each\n"
        f"of the {tokens} tokens of the output is a weighted sum of the {tokens} tokens of its window\n"
        "(a grouped 1-D convolution). There are no queries, keys, masks or position biases."
    )
    text(ax, left, below + 48, note, 10.5, GREY, ha="left")


def _draw_headings(ax: Axes, headings: Sequence[tuple[str, str, str]], lefts: Sequence[float], grid_top: float) -> None:
    """Writes name and note, in a colour, over each of three grids, and draws arrows between them."""
    for x, (name, note, color) in zip(lefts, headings, strict=True):
        text(ax, x + GRID / 2, grid_top - 29, name, 12, color, weight="bold")
        text(ax, x + GRID / 2, grid_top - 13, note, 10.5, GREY)
    for x, following in pairwise(lefts):
        arrow(ax, (x + GRID + 6, grid_top + GRID / 2), (following - 6, grid_top + GRID / 2))


def _draw_grid(
    ax: Axes,
    left: float,
    top: float,
    labels_HW: np.ndarray,
    colors: dict[int, str],
    window: tuple[int, int],
    offset: tuple[int, int],
    edge: str,
    named: bool = True,
) -> None:
    """Draws a map of tokens coloured by label, divided into windows that begin at `offset`; several labels are written."""
    (rows, columns), cell = labels_HW.shape, GRID / max(labels_HW.shape)
    for row, column in np.ndindex(rows, columns):
        color = colors[int(labels_HW[row, column])]
        corner = (left + column * cell, top + row * cell)
        ax.add_patch(Rectangle(corner, cell, cell, fc=color, ec="white" if color != "white" else PALE, lw=0.8))
    for row in {0, *range(offset[0], rows, window[0]), rows}:
        ax.plot([left, left + columns * cell], [top + row * cell] * 2, color=edge, lw=1.8)
    for column in {0, *range(offset[1], columns, window[1]), columns}:
        ax.plot([left + column * cell] * 2, [top, top + rows * cell], color=edge, lw=1.8)
    for label in colors if named and len(colors) > 1 else ():
        row, column = np.argwhere(labels_HW == label).mean(axis=0).tolist()
        text(ax, left + (column + 0.5) * cell, top + (row + 0.5) * cell, str(label), 12, weight="bold")


def _draw_masks(ax: Axes, left: float, right: float, top: float, windows_GT: np.ndarray, colors: dict[int, str]) -> None:
    """Draws queries as rows and keys as columns: an allowed pair has the colour of its region, a masked pair is white."""
    text(ax, left, top + 10, "Attention masks", 12, ha="left", weight="bold")
    text(ax, left, top + 48, "of the four windows:\na token attends only\nwithin its region", 10.5, GREY, ha="left")
    side, gap = 76, 14
    x = right - len(windows_GT) * (side + gap) + gap
    text(ax, x - gap, top + side + 12, "regions", 10.5, GREY, ha="right")
    for labels_T in windows_GT:
        colored = np.array([[to_rgb(colors[label])] * len(labels_T) for label in labels_T.tolist()])
        same_TT = labels_T[:, None] == labels_T[None, :]
        show(ax, np.where(same_TT[:, :, None], colored, 1.0), (x, top, side, side))
        ax.add_patch(Rectangle((x, top), side, side, fc="none", ec=LINE, lw=0.8))
        regions = ", ".join(map(str, np.unique(labels_T).tolist()))
        text(ax, x + side / 2, top + side + 12, regions, 10.5, GREY)
        x += side + gap


def _region_colors(windows_GT: np.ndarray) -> dict[int, str]:
    """Returns a hue for each window of the rolled map, with a shade of it for each region in that window."""
    colors: dict[int, str] = {}
    for hue, labels_T in zip([NEUTRAL, REGULAR, SHIFTED, CHANGE], windows_GT, strict=True):
        regions = np.unique(labels_T).tolist()
        shades = np.linspace(0.3, 0.66, len(regions))
        colors |= {region: tint(hue, shade) for region, shade in zip(regions, shades, strict=True)}
    return colors
