"""Drawing functions of the architecture figure: a palette, a few shapes, an image. Lengths are pixels; y points down."""

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

INK, GREY, LINE, PALE, PANEL = "#1f2933", "#66727f", "#7b8794", "#dfe4e8", "#f6f8f9"
REGULAR, SHIFTED, CHANGE, NEUTRAL = "#2f6690", "#d1793b", "#4f7f6b", "#8a97a5"
"""Colours of W-MSA, of SW-MSA, of layers that change a map's size or channels, and of all others."""

Point = tuple[float, float]


def title(ax: Axes, x: float, y: float, letter: str, name: str, note: str = "", *, max_width: float = 640) -> None:
    heading = text(ax, x, y, f"({letter})  {name}", 13, ha="left", weight="bold", max_width=max_width)
    text(ax, x + width_of(heading) + 10, y + 0.5, note, 11, GREY, ha="left")


def text(
    ax: Axes,
    x: float,
    y: float,
    words: str,
    size: float,
    color: str = INK,
    *,
    ha: Literal["left", "center", "right"] = "center",
    weight: Literal["normal", "bold"] = "normal",
    upwards: bool = False,
    max_width: float = float("inf"),
) -> Text:
    """Writes text with a `size` in pixels, smaller if it would be wider than `max_width`; `y` is the middle of the text.

    Dollar signs enclose formulas, as matplotlib reads them; `literal` writes names from elsewhere.
    """
    one_line = "\n" not in words and not upwards
    written = ax.text(x, y, words, color=color, ha=ha, va="center_baseline" if one_line else "center")
    written.set(size=size * 72 / 90, weight=weight, rotation=90 if upwards else 0, linespacing=1.4)
    if (width := width_of(written)) > max_width:
        written.set(size=size * 72 / 90 * max_width / width)
    return written


def width_of(written: Text) -> float:
    """Returns the width of a text."""
    axes = written.axes
    assert axes is not None
    return float(written.get_window_extent().transformed(axes.transData.inverted()).width)


def literal(name: str) -> str:
    """Returns a name in which nothing is read as a formula."""
    return name.replace("$", r"\$")


def box(
    ax: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    fill: str,
    edge: str = "none",
    radius: float = 4,
) -> None:
    style = f"round,pad=0,rounding_size={radius}"
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc=fill, ec=edge, lw=0.9))


def arrow(ax: Axes, start: Point, end: Point) -> None:
    style = {"arrowstyle": "-|>,head_width=0.16,head_length=0.32", "color": LINE, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=end, xytext=start, arrowprops=style)


def show(ax: Axes, pixels: np.ndarray, place: tuple[float, float, float, float]) -> None:
    """Shows an image without smoothing at (x, y, width, height)."""
    x, y, width, height = place
    ax.imshow(pixels, extent=(x, x + width, y + height, y), interpolation="nearest", aspect="auto", zorder=1.5)


def tint(color: str, strength: float) -> str:
    """Mixes a colour with white: a strength of 1 is the colour itself, 0 is white."""
    red, green, blue = (1 - strength * (1 - channel) for channel in to_rgb(color))
    return to_hex((red, green, blue))


def scene(height: int, width: int) -> np.ndarray:
    """Returns an image of hills under a low sun, (height, width, 3)."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image = blend("#fbe9d3", "#a9c6dd", 1 - y / 0.75)
    image[(x - 0.68) ** 2 + (y - 0.36) ** 2 < 0.11**2] = to_rgb("#f2b36b")
    for color, level, height_of, waves, phase in [
        ("#8fb0c6", 0.56, 0.09, 1.4, 0.3),
        ("#5d8a84", 0.70, 0.07, 1.9, 2.1),
        ("#35605a", 0.86, 0.06, 1.2, 4.2),
    ]:
        image[y > level + height_of * np.sin(2 * np.pi * waves * x + phase)] = to_rgb(color)
    return image


def blend(start: str, end: str, amount: np.ndarray) -> np.ndarray:
    """Maps amounts (...,) from 0 to 1 to colours (..., 3) from `start` to `end`."""
    first, last = np.array(to_rgb(start)), np.array(to_rgb(end))
    return first + (last - first) * np.clip(amount, 0, 1)[..., None]
