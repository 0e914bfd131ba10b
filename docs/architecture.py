"""Draws the architecture of a model, after Fig. 3 of arXiv 2103.14030, with every number read from the model itself.

    python docs/architecture.py [MODEL] [-o FILE]

Writes docs/architecture.png by default; the suffix of FILE determines the format (png, svg, pdf). There are three panels:
the stages with their maps, windows and blocks; two blocks in detail; and how windows shift, drawn with the functions of
swin_lab.ops.geometry that the model itself calls.

Lengths are pixels of a README that is 900 wide; y points down.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle
from pens import (
    CHANGE,
    GREY,
    INK,
    LINE,
    NEUTRAL,
    PALE,
    PANEL,
    REGULAR,
    SHIFTED,
    Point,
    arrow,
    blend,
    box,
    scene,
    show,
    text,
    tint,
    title,
)
from torch import Tensor

import swin_lab
from swin_lab.models import SwinTransformer
from swin_lab.models.swin import SwinBlock, SwinStage
from swin_lab.ops import geometry
from swin_lab.ops.geometry import Size

DEFAULT = "swin_tiny_patch4_window7_224"
WIDTH, HEIGHT = 900, 736
STAGE_TOP, MAP_MIDDLE, MAP_TEXT, FLOW, STAGE_BOTTOM = 46, 140, 206, 296, 350
"""Heights in panel (a): edge of a stage, centre of its map, text below the map, the line images flow along, edge."""
BAR = 84
"""Height of the bar that stands for a block."""
DETAIL = 368
"""Upper edge of panels (b) and (c)."""


def main() -> None:
    arguments = parse_arguments()
    figure = draw(swin_lab.create_model(arguments.model), arguments.model)
    figure.savefig(arguments.output, transparent=True)
    print(arguments.output)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draws the architecture of a model.")
    parser.add_argument("model", nargs="?", default=DEFAULT, choices=swin_lab.list_models(), metavar="MODEL")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".png"), metavar="FILE")
    return parser.parse_args()


def draw(model: SwinTransformer, name: str) -> Figure:
    plt.rcParams.update({"font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans", "text.color": INK})
    figure = plt.figure(figsize=(WIDTH / 90, HEIGHT / 90), dpi=180)
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    ax.set_axis_off()
    box(ax, 1, 1, WIDTH - 2, HEIGHT - 2, fill="white", edge=PALE, radius=12)
    draw_stages(ax, model, name)
    draw_block_pair(ax, model, left=16, width=316)
    draw_shift(ax, left=346, width=WIDTH - 346 - 16)
    return figure


def panel(ax: Axes, left: float, width: float, letter: str, name: str, note: str = "") -> None:
    box(ax, left, DETAIL, width, HEIGHT - 16 - DETAIL, fill=PANEL, edge=PALE, radius=8)
    title(ax, left + 16, DETAIL + 20, letter, name, note)


# Panel (a): from image to logits


def draw_stages(ax: Axes, model: SwinTransformer, name: str) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    title(ax, 22, 26, "a", name, f"{parameters:.1f} M parameters")
    count, gap = len(model.stages), 14.0
    width = min(150.0, (642 - gap * (count - 1)) / count)
    left = (WIDTH - count * (width + gap) + gap) / 2 + 4
    draw_image(ax, model, centre=left - 64)
    leaves_at = left - 64 + 44
    for stage in range(count):
        arrow(ax, (leaves_at, FLOW), (left + 9, FLOW))
        leaves_at = draw_stage(ax, model, stage, left, width)
        left += width + gap
    arrow(ax, (leaves_at, FLOW), (left + 3, FLOW))
    draw_head(ax, model, left + 4)


def draw_image(ax: Axes, model: SwinTransformer, centre: float) -> None:
    (height, width), patch = model.config.image_size, model.embed.patch_size
    drawn = 84 * height / max(height, width), 84 * width / max(height, width)
    show(ax, scene(height, width), (centre - drawn[1] / 2, MAP_MIDDLE - drawn[0] / 2, drawn[1], drawn[0]))
    text(ax, centre, MAP_TEXT, rf"$H \times W \times {model.config.in_channels}$", 12)
    text(ax, centre, MAP_TEXT + 16, product(height, width, model.config.in_channels), 10.5, GREY)
    arrow(ax, (centre, MAP_TEXT + 28), (centre, FLOW - 25))
    box(ax, centre - 44, FLOW - 24, 88, 48, fill=tint(CHANGE, 0.22), edge=CHANGE)
    text(ax, centre, FLOW, f"Patch partition\n{product(*patch)} pixels", 10)


def draw_stage(ax: Axes, model: SwinTransformer, stage: int, left: float, width: float) -> float:
    """Draws the map above and the layers of the stage below. Returns the x at which the map leaves the last block."""
    config, blocks = model.config, blocks_of(model, stage)
    middle = left + width / 2
    box(ax, left, STAGE_TOP, width, STAGE_BOTTOM - STAGE_TOP, fill=PANEL, edge=PALE, radius=8)
    text(ax, middle, STAGE_TOP + 16, f"Stage {stage + 1}", 12, weight="bold")
    counts = f"{plural(len(blocks), 'block')} · {plural(config.num_heads[stage], 'head')}"
    text(ax, middle, STAGE_TOP + 32, counts, 10.5, GREY)
    draw_map(ax, model, stage, middle)
    stride, factor = model.embed.patch_size[0] * 2**stage, config.channels[stage] // config.channels[0]
    size = rf"$H/{stride} \times W/{stride} \times {factor if factor > 1 else ''}C$"
    text(ax, middle, MAP_TEXT, size, 12)
    text(ax, middle, MAP_TEXT + 16, product(*config.maps[stage], config.channels[stage]), 10.5, GREY)
    text(ax, middle, MAP_TEXT + 31, windows_of(config.maps[stage], config.windows[stage]), 10.5, GREY)

    box(ax, left + 10, FLOW - BAR / 2, 32, BAR, fill=tint(CHANGE, 0.22), edge=CHANGE)
    text(ax, left + 26, FLOW, "Linear\nembedding" if stage == 0 else "Patch\nmerging", 10, upwards=True)
    first, last = left + 54, left + width - 10
    step = min(19.0, (last - first) / len(blocks))
    start = (first + last - step * len(blocks)) / 2
    arrow(ax, (left + 43, FLOW), (start, FLOW))
    draw_blocks(ax, blocks, start, step)
    if stage == 0:
        draw_zoom(ax, (start, start + step * min(2, len(blocks))))
    return start + step * len(blocks)


def draw_map(ax: Axes, model: SwinTransformer, stage: int, middle: float) -> None:
    """Draws a slab; its face is proportional to the map and divided into windows, its depth proportional to the channels."""
    config = model.config
    scale, depth = 84 / max(config.maps[0]), 8 * config.channels[stage] / config.channels[0]
    height, width = config.maps[stage][0] * scale, config.maps[stage][1] * scale
    right, up = 0.85 * depth, 0.35 * depth
    x, y = middle - (width + right) / 2, MAP_MIDDLE - (height - up) / 2
    ends = (x + width, y + height)
    top = [(x, y), (x + right, y - up), (ends[0] + right, y - up), (ends[0], y)]
    side = [(ends[0], y), (ends[0] + right, y - up), (ends[0] + right, ends[1] - up), ends]
    ax.add_patch(Polygon(top, fc=tint(REGULAR, 0.28), ec=REGULAR, lw=0.6, joinstyle="round"))
    ax.add_patch(Polygon(side, fc=tint(REGULAR, 0.5), ec=REGULAR, lw=0.6, joinstyle="round"))
    show(ax, seen_at(config.maps[stage], config.image_size), (x, y, width, height))
    for row in range(0, config.maps[stage][0], config.windows[stage][0]):
        ax.plot([x, ends[0]], [y + row * scale] * 2, color=REGULAR, lw=0.6)
    for column in range(0, config.maps[stage][1], config.windows[stage][1]):
        ax.plot([x + column * scale] * 2, [y, ends[1]], color=REGULAR, lw=0.6)
    ax.add_patch(Rectangle((x, y), width, height, fc="none", ec=REGULAR, lw=0.9))


def seen_at(map_size: Size, img_size: Size) -> np.ndarray:
    """Returns the image in shades of blue, at the resolution of a map."""
    brightness = torch.from_numpy(scene(*img_size).mean(axis=2))
    pooled = F.adaptive_avg_pool2d(brightness[None], map_size)[0].numpy()
    return blend(tint(REGULAR, 0.62), tint(REGULAR, 0.04), pooled)


def draw_blocks(ax: Axes, blocks: list[SwinBlock], left: float, step: float) -> None:
    """Draws a bar for each block, in the colour of its attention, with its name where it fits."""
    gap = 3 if step > 8 else 1
    for i, block in enumerate(blocks):
        x = left + i * step
        box(ax, x + gap / 2, FLOW - BAR / 2, step - gap, BAR, fill=color_of(block), radius=min(3, step / 4))
        if step > 13:
            text(ax, x + step / 2, FLOW, attention_name(block), 10, "white", upwards=True)


def blocks_of(model: SwinTransformer, stage: int) -> list[SwinBlock]:
    opened = model.stages[stage]
    assert isinstance(opened, SwinStage)
    return [block for block in opened.blocks if isinstance(block, SwinBlock)]


def draw_zoom(ax: Axes, span: tuple[float, float]) -> None:
    """Connects the first blocks of stage 1 with panel (b), which shows them enlarged."""
    bottom = FLOW + BAR / 2 + 2
    corners = [(span[0], bottom), (span[1], bottom), (326, DETAIL), (22, DETAIL)]
    ax.add_patch(Polygon(corners, fc=PALE, ec="none", alpha=0.7))


def draw_head(ax: Axes, model: SwinTransformer, left: float) -> None:
    classes, middle = model.config.num_classes, left + 42
    steps = [("LayerNorm", NEUTRAL), ("Average pool", NEUTRAL)] + [("Linear", CHANGE)] * (classes > 0)
    for i, (step, color) in enumerate(steps):
        y = FLOW - 42 * i
        box(ax, left, y - 14, 84, 28, fill=tint(color, 0.22), edge=color)
        text(ax, middle, y, step, 10)
        arrow(ax, (middle, y - 15), (middle, y - 27))
    result = f"{classes} logits" if classes else f"{model.config.channels[-1]} features"
    text(ax, middle, FLOW - 42 * len(steps) + 4, result, 11, weight="bold")


# Panel (b): blocks in detail


def draw_block_pair(ax: Axes, model: SwinTransformer, left: float, width: float) -> None:
    panel(ax, left, width, "b", "Two blocks in a row")
    blocks = blocks_of(model, 0)[:2]
    top, pitch = DETAIL + 50, 150
    first, link = left + 84, left + 84 + 73
    last = first + pitch * (len(blocks) - 1)
    text(ax, first + 14, top - 2, r"$z^{\ell-1}$", 12, ha="left")
    for i, block in enumerate(blocks):
        end = draw_block(ax, model, block, first + pitch * i, top, r"\ell" if i == 0 else r"\ell+1")
    if len(blocks) > 1:
        x, y = [first, first, link, link, last, last], [end, end + 14, end + 14, top, top, top + 8]
        ax.plot(x, y, color=LINE, lw=1.2)
    arrow(ax, (last, end), (last, end + 20))


def draw_block(ax: Axes, model: SwinTransformer, block: SwinBlock, x: float, y: float, index: str) -> float:
    """Draws a block downwards from `y`, branch by branch, each with its residual connection. Returns the y at which it ends."""
    branches = branches_of(block, model.config.channels[0])
    for branch, parts in enumerate(branches):
        leaves_at, box_top = y + 9, y + 25
        for part in parts:
            arrow(ax, (x, y), (x, box_top))
            fill, edge = paint_of(block, part)
            box(ax, x - 44, box_top, 88, 28, fill=fill, edge=edge)
            text(ax, x, box_top + 14, label_of(block, part), 11, weight="bold" if part == "attn" else "normal")
            y, box_top = box_top + 28, box_top + 42
        plus = y + 22
        arrow(ax, (x, y), (x, plus - 8))
        ax.plot([x, x - 60, x - 60, x - 16], [leaves_at, leaves_at, plus, plus], color=LINE, lw=1.2)
        arrow(ax, (x - 20, plus), (x - 8, plus))
        draw_sum(ax, (x, plus))
        symbol = "z" if branch == len(branches) - 1 else r"\hat{z}"
        text(ax, x + 14, plus, f"${symbol}^{{{index}}}$", 12, ha="left")
        y = plus + 8
    return y


def draw_sum(ax: Axes, centre: Point) -> None:
    x, y = centre
    ax.add_patch(Circle(centre, 8, fc="white", ec=INK, lw=1.1))
    ax.plot([x - 4, x + 4], [y, y], color=INK, lw=1.1)
    ax.plot([x, x], [y - 4, y + 4], color=INK, lw=1.1)


def branches_of(block: SwinBlock, channels: int) -> list[list[str]]:
    """Returns the names of a block's layers in the order they run, a list for each residual branch; drop path ends a branch."""
    ran: list[str] = []
    for name, layer in block.named_children():
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
    block(torch.zeros(1, 1, 1, channels))
    branches: list[list[str]] = [[]]
    for name in ran:
        if name == "drop_path":
            branches.append([])
        else:
            branches[-1].append(name)
    return branches[:-1]


def label_of(block: SwinBlock, part: str) -> str:
    return {"norm1": "LayerNorm", "norm2": "LayerNorm", "mlp": "MLP", "attn": attention_name(block)}.get(part, part)


def paint_of(block: SwinBlock, part: str) -> tuple[str, str]:
    """Returns the colours of fill and edge."""
    if part == "attn":
        return tint(color_of(block), 0.3), color_of(block)
    return tint(NEUTRAL, 0.12 if part.startswith("norm") else 0.32), NEUTRAL


def attention_name(block: SwinBlock) -> str:
    return "SW-MSA" if is_shifted(block) else "W-MSA"


def color_of(block: SwinBlock) -> str:
    return SHIFTED if is_shifted(block) else REGULAR


def is_shifted(block: SwinBlock) -> bool:
    return block.attn.shift != (0, 0)


# Panel (c): how windows shift, on a small map


def draw_shift(ax: Axes, left: float, width: float) -> None:
    map_size: Size = (8, 8)
    window, shift = geometry.fit_window(map_size, window=(4, 4), shift=(2, 2))
    rolled = geometry.region_labels(map_size, window, shift)
    windows_GT = geometry.partition(rolled[None, :, :, None], window)[0, :, :, 0]
    colors = region_colors(windows_GT)
    note = f"{product(*map_size)} tokens, windows of {product(*window)}"
    panel(ax, left, width, "c", "Windows and their shift", note)
    left, right = left + 16, left + width - 16

    lefts, top = np.linspace(left, right - GRID, 3), DETAIL + 82
    whole, unrolled = torch.zeros_like(rolled), rolled.roll(shift, dims=(0, 1))
    draw_grid(ax, lefts[0], top, "W-MSA", "regular windows", whole, {0: tint(REGULAR, 0.3)}, window, (0, 0), REGULAR)
    moved = f"moved by {product(*shift)} tokens"
    draw_grid(ax, lefts[1], top, "SW-MSA", moved, unrolled, colors, window, shift, SHIFTED)
    draw_grid(ax, lefts[2], top, "Cyclic shift", "whole windows again", rolled, colors, window, (0, 0), INK)
    for x, following in pairwise(lefts):
        arrow(ax, (x + GRID + 6, top + GRID / 2), (following - 6, top + GRID / 2))
    masks_GTT = geometry.shift_mask(map_size, window, shift, rolled.device)
    draw_masks(ax, left, right, top + GRID + 20, masks_GTT, windows_GT, colors)


GRID = 146
"""Side of a map in panel (c)."""


def draw_grid(
    ax: Axes,
    left: float,
    top: float,
    name: str,
    note: str,
    labels_HW: Tensor,
    colors: dict[int, str],
    window: Size,
    offset: Size,
    edge: str,
) -> None:
    """Draws a map of tokens coloured by label, divided into windows that begin at `offset`."""
    text(ax, left + GRID / 2, top - 29, name, 12, edge, weight="bold")
    text(ax, left + GRID / 2, top - 13, note, 10.5, GREY)
    (rows, columns), cell = labels_HW.shape, GRID / max(labels_HW.shape)
    for row, column in np.ndindex(rows, columns):
        color = colors[int(labels_HW[row, column])]
        corner = (left + column * cell, top + row * cell)
        ax.add_patch(Rectangle(corner, cell, cell, fc=color, ec="white", lw=0.8))
    for row in {0, *range(offset[0], rows, window[0]), rows}:
        ax.plot([left, left + columns * cell], [top + row * cell] * 2, color=edge, lw=1.8)
    for column in {0, *range(offset[1], columns, window[1]), columns}:
        ax.plot([left + column * cell] * 2, [top, top + rows * cell], color=edge, lw=1.8)
    for label in colors if len(colors) > 1 else ():
        row, column = (labels_HW == label).nonzero().float().mean(dim=0).tolist()
        text(ax, left + (column + 0.5) * cell, top + (row + 0.5) * cell, str(label), 12, weight="bold")


def draw_masks(
    ax: Axes, left: float, right: float, top: float, masks_GTT: Tensor, windows_GT: Tensor, colors: dict[int, str]
) -> None:
    """Draws queries as rows and keys as columns: an allowed pair has the colour of its region, a masked pair is white."""
    text(ax, left, top + 10, "Attention masks", 12, ha="left", weight="bold")
    text(ax, left, top + 48, "of the four windows:\na token attends only\nwithin its region", 10.5, GREY, ha="left")
    side, gap = 76, 14
    x = right - len(masks_GTT) * (side + gap) + gap
    text(ax, x - gap, top + side + 12, "regions", 10.5, GREY, ha="right")
    for mask_TT, labels_T in zip(masks_GTT, windows_GT, strict=True):
        allowed = np.array([[to_rgb(colors[label])] * len(labels_T) for label in labels_T.tolist()])
        show(ax, np.where((mask_TT == 0).numpy()[:, :, None], allowed, 1.0), (x, top, side, side))
        ax.add_patch(Rectangle((x, top), side, side, fc="none", ec=LINE, lw=0.8))
        regions = ", ".join(str(label) for label in labels_T.unique().tolist())
        text(ax, x + side / 2, top + side + 12, regions, 10.5, GREY)
        x += side + gap


def region_colors(windows_GT: Tensor) -> dict[int, str]:
    """Returns a hue for each window of the rolled map, with a shade of it for each region in that window."""
    colors: dict[int, str] = {}
    for hue, labels_T in zip([NEUTRAL, REGULAR, SHIFTED, CHANGE], windows_GT, strict=True):
        regions = labels_T.unique().tolist()
        shades = np.linspace(0.3, 0.66, len(regions))
        colors |= {region: tint(hue, shade) for region, shade in zip(regions, shades, strict=True)}
    return colors


# Text


def product(*numbers: int) -> str:
    return " × ".join(f"{number}" for number in numbers)


def plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("s" if count != 1 else "")


def windows_of(map_size: Size, window: Size) -> str:
    count = -(-map_size[0] // window[0]) * -(-map_size[1] // window[1])
    return f"{plural(count, 'window')} of {product(*window)}"


if __name__ == "__main__":
    main()
