"""Plots the learning rate of a run."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swin_lab.report.figures import write_figure


def draw_learning_rates(epochs: Sequence[float], learning_rates: Sequence[float], title: str, file: Path) -> None:
    """Plots learning rates over epochs and writes the plot as a PNG file.

    Args:
        epochs: positions of the learning rates, in epochs since the start of training.
        learning_rates: one per position.
        title: printed above the plot.
        file: the PNG file to write; its folder must exist.
    """
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(epochs, learning_rates, linewidth=1.8)
    highest = max(range(len(learning_rates)), key=learning_rates.__getitem__)
    for position in (0, highest, len(learning_rates) - 1):
        left = position > len(learning_rates) // 2
        axes.plot([epochs[position]], [learning_rates[position]], "o", color="C0", markersize=4)
        axes.annotate(
            f"{learning_rates[position]:.4g}",
            (epochs[position], learning_rates[position]),
            textcoords="offset points",
            xytext=(-6 if left else 6, 5),
            ha="right" if left else "left",
            fontsize=9,
        )
    axes.set(xlabel="epoch", ylabel="learning rate", title=title, ylim=(0, max(learning_rates) * 1.12 or 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    write_figure(figure, file, dpi=130)
