"""Draws the architecture of a network, after Fig. 3 of arXiv 2103.14030, with the numbers that it is given.

There are three panels: the stages with their maps, windows and blocks; two blocks in detail; and how windows shift.

Lengths are pixels of a page that is 900 wide; y points down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from PIL import Image

from swin_lab.report.blocks import BlockDrawing, color_of, draw_block_pair, draw_padding, draw_shift, mixer_name
from swin_lab.report.figures import write_figure
from swin_lab.report.pens import (
    CHANGE,
    GREY,
    INK,
    NEUTRAL,
    PALE,
    PANEL,
    REGULAR,
    arrow,
    blend,
    box,
    literal,
    scene,
    show,
    text,
    tint,
    title,
)

Size = tuple[int, int]
"""Rows and columns."""

HEIGHT = 736
STAGE_WIDTH, STAGE_GAP = 150, 14
BESIDE_STAGES = 258
"""Width of all that is beside the stages."""
MIN_STAGES = 4
"""With fewer stages, the figure is as wide as with this number, for the panels below."""
STAGE_TOP, MAP_MIDDLE, MAP_TEXT, FLOW, STAGE_BOTTOM = 46, 140, 206, 296, 350
"""Heights in panel (a): edge of a stage, centre of its map, text below the map, the line images flow along, edge."""
BAR = 84
"""Height of the bar that stands for a block."""
DETAIL = 368
"""Upper edge of panels (b) and (c)."""
MAP_SIDE = 84
"""Longer side of the largest map."""


@dataclass(frozen=True)
class StageDrawing:
    """Describes a stage."""

    map_size: Size
    channels: int
    window: Size
    heads: int
    shifted: tuple[bool, ...]
    """For every block whether its windows are shifted."""


@dataclass(frozen=True)
class ArchitectureDrawing:
    """Describes a network for an image size."""

    name: str
    parameters: int
    img_size: Size
    in_channels: int
    patch_size: int
    stages: tuple[StageDrawing, ...]
    blocks: tuple[BlockDrawing, ...]
    """One or two blocks in a row, to be shown in detail."""
    num_classes: int
    shift_example: tuple[Size, Size, Size]
    """Map, window and shift, for panel (c)."""
    mixer: str
    """What combines the tokens of a window: MSA, or MLP in Swin-MLP."""
    regions_HW: np.ndarray
    """Region of every token of that map after the cyclic shift; only tokens of one region attend to each other. For an MLP,
    whose windows are shifted by padding: 1 for every token of the padded map, 0 for padding."""
    image_HWC: np.ndarray | None = None
    """The image, with values from 0 to 1 and 1 or 3 channels. If None, a landscape is drawn."""


def draw_architecture(drawing: ArchitectureDrawing, file: Path) -> None:
    """Writes the figure; the ending of the file determines the format (png, svg, pdf).

    Args:
        drawing: the network.
        file: the figure; its folder exists.

    Raises:
        UserError: the file cannot be written.
    """
    width = BESIDE_STAGES + _stages_width(max(len(drawing.stages), MIN_STAGES))
    fonts: dict[Any, Any] = {"font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans", "text.color": INK}
    with matplotlib.rc_context(fonts):
        figure = Figure(figsize=(width / 90, HEIGHT / 90), dpi=180)
        FigureCanvasAgg(figure)
        figure.patch.set_alpha(0)
        ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(HEIGHT, 0))
        ax.set_axis_off()
        box(ax, 1, 1, width - 2, HEIGHT - 2, fill="white", edge=PALE, radius=12)
        _draw_stages(ax, drawing, width)
        _panel(ax, 16, 316, "b", "Two blocks in a row" if len(drawing.blocks) > 1 else "A block")
        draw_block_pair(ax, drawing.blocks, left=16, top=DETAIL)
        (rows, columns), (M, N), shift = drawing.shift_example
        _panel(
            ax, 346, width - 362, "c", "Windows and their shift", f"{product(rows, columns)} tokens, windows of {product(M, N)}"
        )
        if drawing.mixer == "MLP":
            draw_padding(ax, drawing.regions_HW, (rows, columns), (M, N), shift, left=362, right=width - 32, top=DETAIL)
        else:
            draw_shift(ax, drawing.regions_HW, (M, N), shift, left=362, right=width - 32, top=DETAIL)
        write_figure(figure, file, dpi=180)


def _stages_width(count: int) -> int:
    return count * STAGE_WIDTH + (count - 1) * STAGE_GAP


def _panel(ax: Axes, left: float, width: float, letter: str, name: str, note: str = "") -> None:
    box(ax, left, DETAIL, width, HEIGHT - 16 - DETAIL, fill=PANEL, edge=PALE, radius=8)
    title(ax, left + 16, DETAIL + 20, letter, name, note)


# Panel (a): from image to logits


def _draw_stages(ax: Axes, drawing: ArchitectureDrawing, width: float) -> None:
    title(ax, 22, 26, "a", literal(drawing.name), f"{short(drawing.parameters)} parameters")
    count = len(drawing.stages)
    left = (width - _stages_width(count)) / 2 + 4
    _draw_image(ax, drawing, centre=left - 64)
    leaves_at = left - 64 + 44
    for index in range(count):
        arrow(ax, (leaves_at, FLOW), (left + 9, FLOW))
        leaves_at = _draw_stage(ax, drawing, index, left)
        left += STAGE_WIDTH + STAGE_GAP
    arrow(ax, (leaves_at, FLOW), (left + 3, FLOW))
    _draw_head(ax, drawing, left + 4)


def _draw_image(ax: Axes, drawing: ArchitectureDrawing, centre: float) -> None:
    (height, width), channels = drawing.img_size, drawing.in_channels
    scale = MAP_SIDE / max(height, width)
    place = (centre - width * scale / 2, MAP_MIDDLE - height * scale / 2, width * scale, height * scale)
    show(ax, _image_of(drawing), place)
    text(ax, centre, MAP_TEXT, rf"$H \times W \times {channels}$", 12)
    text(ax, centre, MAP_TEXT + 16, product(height, width, channels), 10.5, GREY, max_width=108)
    arrow(ax, (centre, MAP_TEXT + 28), (centre, FLOW - 25))
    box(ax, centre - 44, FLOW - 24, 88, 48, fill=tint(CHANGE, 0.22), edge=CHANGE)
    text(ax, centre, FLOW, f"Patch partition\n{product(drawing.patch_size, drawing.patch_size)} pixels", 10, max_width=84)


def _image_of(drawing: ArchitectureDrawing) -> np.ndarray:
    """Returns the image in RGB, (H, W, 3) with values from 0 to 1."""
    if drawing.image_HWC is None:
        return scene(*drawing.img_size)
    return np.broadcast_to(drawing.image_HWC, (*drawing.image_HWC.shape[:2], 3))


def _draw_stage(ax: Axes, drawing: ArchitectureDrawing, index: int, left: float) -> float:
    """Draws the map above and the layers of the stage below. Returns the x at which the map leaves the last block."""
    stage, middle, inside = drawing.stages[index], left + STAGE_WIDTH / 2, STAGE_WIDTH - 8
    box(ax, left, STAGE_TOP, STAGE_WIDTH, STAGE_BOTTOM - STAGE_TOP, fill=PANEL, edge=PALE, radius=8)
    text(ax, middle, STAGE_TOP + 16, f"Stage {index + 1}", 12, weight="bold")
    counts = f"{plural(len(stage.shifted), 'block')} · {plural(stage.heads, 'head')}"
    text(ax, middle, STAGE_TOP + 32, counts, 10.5, GREY, max_width=inside)
    _draw_map(ax, drawing, index, middle)
    stride, factor = drawing.patch_size * 2**index, stage.channels // drawing.stages[0].channels
    size = rf"$H/{stride} \times W/{stride} \times {factor if factor > 1 else ''}C$"
    text(ax, middle, MAP_TEXT, size, 12, max_width=inside)
    text(ax, middle, MAP_TEXT + 16, product(*stage.map_size, stage.channels), 10.5, GREY, max_width=inside)
    text(ax, middle, MAP_TEXT + 31, _windows_of(stage), 10.5, GREY, max_width=inside)

    box(ax, left + 10, FLOW - BAR / 2, 32, BAR, fill=tint(CHANGE, 0.22), edge=CHANGE)
    text(ax, left + 26, FLOW, "Linear\nembedding" if index == 0 else "Patch\nmerging", 10, upwards=True)
    first, last = left + 54, left + STAGE_WIDTH - 10
    step = min(19.0, (last - first) / len(stage.shifted))
    start = (first + last - step * len(stage.shifted)) / 2
    arrow(ax, (left + 43, FLOW), (start, FLOW))
    _draw_blocks(ax, drawing.mixer, stage.shifted, start, step)
    if index == 0:
        _draw_zoom(ax, (start, start + step * min(2, len(stage.shifted))))
    return start + step * len(stage.shifted)


def _draw_map(ax: Axes, drawing: ArchitectureDrawing, index: int, middle: float) -> None:
    """Draws a slab; its face is proportional to the map and divided into windows, its depth proportional to the channels."""
    stage, first = drawing.stages[index], drawing.stages[0]
    scale, depth = MAP_SIDE / max(first.map_size), min(8 * stage.channels / first.channels, 100)
    height, width = stage.map_size[0] * scale, stage.map_size[1] * scale
    right, up = 0.85 * depth, 0.35 * depth
    x, y = middle - (width + right) / 2, MAP_MIDDLE - (height - up) / 2
    ends = (x + width, y + height)
    top = [(x, y), (x + right, y - up), (ends[0] + right, y - up), (ends[0], y)]
    side = [(ends[0], y), (ends[0] + right, y - up), (ends[0] + right, ends[1] - up), ends]
    ax.add_patch(Polygon(top, fc=tint(REGULAR, 0.28), ec=REGULAR, lw=0.6, joinstyle="round"))
    ax.add_patch(Polygon(side, fc=tint(REGULAR, 0.5), ec=REGULAR, lw=0.6, joinstyle="round"))
    show(ax, _seen_at(_image_of(drawing), stage.map_size), (x, y, width, height))
    for row in _some(range(0, stage.map_size[0], stage.window[0])):
        ax.plot([x, ends[0]], [y + row * scale] * 2, color=REGULAR, lw=0.6)
    for column in _some(range(0, stage.map_size[1], stage.window[1])):
        ax.plot([x + column * scale] * 2, [y, ends[1]], color=REGULAR, lw=0.6)
    ax.add_patch(Rectangle((x, y), width, height, fc="none", ec=REGULAR, lw=0.9))


def _some(lines: Sequence[int]) -> Sequence[int]:
    """Returns lines between windows, or none where they would be closer than 2 pixels and cover the map."""
    return lines if len(lines) <= MAP_SIDE / 2 else ()


def _seen_at(image_HWC: np.ndarray, map_size: Size) -> np.ndarray:
    """Returns an image in shades of blue, at the resolution of a map."""
    brightness = Image.fromarray(image_HWC.mean(axis=2).astype(np.float32))
    pooled = np.asarray(brightness.resize((map_size[1], map_size[0]), Image.Resampling.BOX))
    return blend(tint(REGULAR, 0.62), tint(REGULAR, 0.04), pooled)


def _draw_blocks(ax: Axes, mixer: str, shifted: Sequence[bool], left: float, step: float) -> None:
    """Draws a bar for each block, in the colour of its attention, with its name where it fits."""
    gap = 3 if step > 8 else min(1, step / 4)
    for i, is_shifted in enumerate(shifted):
        x = left + i * step
        box(ax, x + gap / 2, FLOW - BAR / 2, step - gap, BAR, fill=color_of(is_shifted), radius=min(3, step / 4))
        if step > 13:
            text(ax, x + step / 2, FLOW, mixer_name(mixer, is_shifted), 10, "white", upwards=True)


def _draw_zoom(ax: Axes, span: tuple[float, float]) -> None:
    """Connects the first blocks of stage 1 with panel (b), which shows them enlarged."""
    bottom = FLOW + BAR / 2 + 2
    corners = [(span[0], bottom), (span[1], bottom), (326, DETAIL), (22, DETAIL)]
    ax.add_patch(Polygon(corners, fc=PALE, ec="none", alpha=0.7))


def _draw_head(ax: Axes, drawing: ArchitectureDrawing, left: float) -> None:
    classes, middle = drawing.num_classes, left + 42
    steps = [("LayerNorm", NEUTRAL), ("Average pool", NEUTRAL)] + [("Linear", CHANGE)] * (classes > 0)
    for i, (step, color) in enumerate(steps):
        y = FLOW - 42 * i
        box(ax, left, y - 14, 84, 28, fill=tint(color, 0.22), edge=color)
        text(ax, middle, y, step, 10)
        arrow(ax, (middle, y - 15), (middle, y - 27))
    result = plural(classes, "logit") if classes else f"{drawing.stages[-1].channels} features"
    text(ax, middle, FLOW - 42 * len(steps) + 4, result, 11, weight="bold", max_width=100)


# Text


def product(*numbers: int) -> str:
    return " × ".join(f"{number}" for number in numbers)


def plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("s" if count != 1 else "")


def short(count: int) -> str:
    """Returns a number with three digits or more, such as 28.3 M."""
    if count < 1e6:
        return f"{count:,}"
    return f"{count / 1e6:.1f} M" if count < 1e9 else f"{count / 1e9:.2f} B"


def _windows_of(stage: StageDrawing) -> str:
    count = -(-stage.map_size[0] // stage.window[0]) * -(-stage.map_size[1] // stage.window[1])
    return f"{plural(count, 'window')} of {product(*stage.window)}"
