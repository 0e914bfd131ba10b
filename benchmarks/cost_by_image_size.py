"""Counts the cost of one image for Swin-T and for a ViT with global attention by image size; prints a table, draws a plot.

    python benchmarks/cost_by_image_size.py [--side 224] [--steps 8] [-o benchmarks/cost_by_image_size.png]

Cost is multiply-accumulates (MACs) of matrix products and convolutions, counted by torch while a model runs on the meta
device: no weights, no arithmetic, the same result on every machine. Swin-T attends inside windows of 7x7 tokens, so its
cost grows linearly with the image's area. The ViT attends from every 16x16 patch to every other, so its cost grows
quadratically with the area of large images. Both cost about 4.5 GMACs at 224 pixels.
"""

import argparse
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import timm
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import swin_lab

SWIN, VIT = "Swin-T, windows of 7×7", "ViT-S/16, global attention"
COLORS = {SWIN: "#2f6690", VIT: "#d1793b"}
INK, GREY, PALE = "#1f2933", "#6b7785", "#e3e7eb"

Costs = dict[int, dict[str, float]]
"""Side of the image in pixels -> model -> GMACs."""


def main() -> None:
    arguments = parse_arguments()
    costs = count_costs([arguments.side * step for step in range(1, arguments.steps + 1)])
    print(table(costs))
    draw(costs).savefig(arguments.output, dpi=200)
    print(f"\ntorch {torch.__version__}, timm {timm.__version__}; plot in {arguments.output}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cost of Swin-T and of a global-attention ViT by image size.")
    parser.add_argument("--side", type=int, default=224, help="smallest image, pixels per side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="images of 1 to STEPS times that (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".png"), metavar="FILE")
    return parser.parse_args()


def count_costs(sides: list[int]) -> Costs:
    swin = swin_tiny()
    return {side: {SWIN: gmacs(swin, side), VIT: gmacs(vit_small(side), side)} for side in sides}


def swin_tiny() -> nn.Module:
    """Builds Swin-T with the reference backend, as the counter ignores fused kernels that it has no formula for."""
    return swin_lab.create_model("swin_tiny_patch4_window7_224", attention_backend="reference")


def vit_small(side: int) -> nn.Module:
    """Builds a ViT for one image size, which its position embedding fixes, without fused attention as in Swin-T."""
    model: Any = timm.create_model("vit_small_patch16_224", img_size=side)
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


def gmacs(model: nn.Module, side: int) -> float:
    """Returns the GMACs (10^9 multiply-accumulates) of one image; torch counts each as two operations."""
    model = model.to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 2 / 1e9


def table(costs: Costs) -> str:
    """Returns a Markdown table with a row for the first size and each doubling of it; growth is relative to the row above."""
    first = min(costs)
    sides = [side for side in costs if (side // first).bit_count() == 1]
    lines = [
        "| image | Swin-T GMACs | growth | ViT-S/16 GMACs | growth | ViT-S / Swin-T |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for side in sides:
        swin, vit = costs[side][SWIN], costs[side][VIT]
        before = costs.get(side // 2)
        swin_growth, vit_growth = (f"{swin / before[SWIN]:.2f}×", f"{vit / before[VIT]:.2f}×") if before else ("", "")
        lines.append(f"| {side}×{side} | {swin:,.2f} | {swin_growth} | {vit:,.2f} | {vit_growth} | {vit / swin:.2f} |")
    return "\n".join(lines)


def draw(costs: Costs) -> Figure:
    """Plots cost over the image's area, both as multiples of the smallest image; Swin-T is the line y = x."""
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8.5, "text.color": INK})
    edges = {"left": 0.08, "right": 0.91, "bottom": 0.145, "top": 0.89}
    figure, ax = plt.subplots(figsize=(7, 4), gridspec_kw=edges)
    for model, color in COLORS.items():
        draw_growth(ax, costs, model, color)
    dress_axes(ax, costs)
    return figure


def draw_growth(ax: Axes, costs: Costs, model: str, color: str) -> None:
    first, last = min(costs), max(costs)
    areas = [(side / first) ** 2 for side in costs]
    growth = [costs[side][model] / costs[first][model] for side in costs]
    ax.plot(areas, growth, color=color, linewidth=2.2, marker="o", markersize=5, markeredgecolor="white", clip_on=False)
    end = (areas[-1], growth[-1])
    annotate(ax, f"{growth[-1]:.0f}×", end, (8, 0), color=color, ha="left", weight="bold")
    cost = f"{costs[first][model]:.1f} → {costs[last][model]:,.0f} GMACs"
    if model == VIT:
        annotate(ax, f"{model}\n{cost}", end, (-52, -10), color=color, ha="right")
    else:
        annotate(ax, f"{model}: {cost}", end, (0, -24), color=color, ha="right")


def annotate(
    ax: Axes,
    text: str,
    point: tuple[float, float],
    offset: tuple[float, float],
    *,
    color: str,
    ha: Literal["left", "right"],
    weight: str = "normal",
) -> None:
    """Writes text `offset` typographic points away from a point of the plot."""
    annotation = ax.annotate(text, point, xytext=offset, textcoords="offset points", annotation_clip=False)
    annotation.set(color=color, ha=ha, va="center", weight=weight, linespacing=1.5)


def dress_axes(ax: Axes, costs: Costs) -> None:
    first = min(costs)
    ticks = [side for side in costs if (side // first) % 2 == 0]
    ax.set_xticks([(side / first) ** 2 for side in ticks], [f"{side}²" for side in ticks])
    ax.set_xlim(0, (max(costs) / first) ** 2)
    ax.set_ylim(0)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.set_xlabel("area of the image, pixels", color=GREY)
    ax.set_title(f"GMACs for one image, relative to {first}×{first}", loc="left", size=10, weight="bold", pad=10)
    ax.yaxis.set_major_formatter("{x:.0f}×")
    ax.grid(axis="y", color=PALE, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=GREY, length=0, pad=6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(PALE)


if __name__ == "__main__":
    main()
