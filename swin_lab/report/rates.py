"""The learning rate over a run, as an image."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_rates(epochs: Sequence[float], rates: Sequence[float], title: str, file: Path) -> None:
    """Writes a PNG.

    Args:
        epochs: where the rates are, in epochs from the start.
        rates: learning rates.
        title: above the image.
        file: the image; its folder exists.
    """
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(epochs, rates, linewidth=1.8)
    top = max(range(len(rates)), key=rates.__getitem__)
    for place in (0, top, len(rates) - 1):
        left = place > len(rates) // 2
        axes.plot([epochs[place]], [rates[place]], "o", color="C0", markersize=4)
        axes.annotate(
            f"{rates[place]:.4g}",
            (epochs[place], rates[place]),
            textcoords="offset points",
            xytext=(-6 if left else 6, 5),
            ha="right" if left else "left",
            fontsize=9,
        )
    axes.set(xlabel="epoch", ylabel="learning rate", title=title, ylim=(0, max(rates) * 1.12 or 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.savefig(file, dpi=130)
