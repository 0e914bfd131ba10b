"""Horizontal bars with error bars, in groups under each other: the results of a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swin_lab.report.figures import write_figure

BAR_HEIGHT = 0.26
"""Inches of a bar."""


@dataclass(frozen=True)
class Bar:
    """Describes a bar."""

    label: str
    value: float
    low: float
    """Start of the error bar."""
    high: float
    emphasised: bool = False
    """Whether it has the strong colour, as ours has among others."""
    note: str = ""
    """It is written after the value."""


def draw_bars(groups: Sequence[tuple[str, Sequence[Bar]]], file: Path, *, title: str, unit: str) -> None:
    """Writes a PNG with one plot per group.

    Args:
        groups: titles and bars, drawn from top to bottom.
        file: the image; its folder exists.
        title: above the first plot.
        unit: label of the axis, such as images/s.
    """
    heights = [len(bars) + 1.6 for _, bars in groups]
    figure = Figure(figsize=(8.5, BAR_HEIGHT * sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", parse_math=False)
    all_axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, bars) in zip(all_axes, groups, strict=True):
        rows = range(len(bars))
        values = [bar.value for bar in bars]
        errors = [[bar.value - bar.low for bar in bars], [bar.high - bar.value for bar in bars]]
        colours = ["#2f6690" if bar.emphasised else "#b8c4ce" for bar in bars]
        axes.barh(rows, values, xerr=errors, color=colours, ecolor="#6b7785", error_kw={"linewidth": 1})
        axes.set_yticks(rows, [bar.label for bar in bars], parse_math=False, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, max(bar.high for bar in bars) * 1.28)
        for row, bar in zip(rows, bars, strict=True):
            text = f"{short_number(bar.value)}{'  ' if bar.note else ''}{bar.note}"
            axes.annotate(text, (bar.high, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_title(name, loc="left", fontsize=9, parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    all_axes[-1].set_xlabel(unit, fontsize=8)
    write_figure(figure, file, dpi=130)


def short_number(value: float) -> str:
    """Returns a number with four significant digits, and with all digits before its point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
