"""What an evaluation found, class by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

MAX_LABELLED_CLASSES = 40
"""Beyond it the axes of the confusion image carry no names."""


@dataclass(frozen=True)
class ClassResults:
    """Per-class results out of a confusion matrix.

    Args:
        class_names: one per class.
        counts: (classes, classes), [truth, prediction].
    """

    class_names: Sequence[str]
    counts: np.ndarray

    def per_class(self) -> list[dict[str, Any]]:
        """Name, images and accuracy of every class that has images, worst first."""
        seen = self.counts.sum(axis=1)
        rows = [
            {"class": name, "images": int(seen[i]), "accuracy": float(self.counts[i, i] / seen[i])}
            for i, name in enumerate(self.class_names)
            if seen[i]
        ]
        return sorted(rows, key=lambda row: row["accuracy"])

    def worst_confusions(self, most: int = 10) -> list[dict[str, Any]]:
        """The most frequent wrong answers: truth, prediction, how often, and that as a part of the truth's images."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [divmod(int(position), len(self.class_names)) for position in order]
        return [
            {
                "truth": self.class_names[i],
                "prediction": self.class_names[j],
                "count": int(wrong[i, j]),
                "fraction": float(wrong[i, j] / self.counts[i].sum()),
            }
            for i, j in pairs
            if wrong[i, j]
        ]

    def print(self, console: Console, most: int = 10) -> None:
        """Two tables: the worst classes, the worst confusions."""
        rows = self.per_class()
        title = "Accuracy per class" if len(rows) <= most else f"The {most} worst of {len(rows)} classes"
        console.print(
            _table(
                title,
                ["class", "images", "accuracy"],
                [[row["class"], str(row["images"]), f"{row['accuracy']:.2%}"] for row in rows[:most]],
            )
        )
        confusions = self.worst_confusions(most)
        if confusions:
            console.print(
                _table(
                    "Most frequent confusions",
                    ["is", "taken for", "times", "of its images"],
                    [[row["truth"], row["prediction"], str(row["count"]), f"{row['fraction']:.2%}"] for row in confusions],
                )
            )

    def draw(self, file: Path) -> None:
        """The confusion matrix as a PNG: rows are truths, each scaled to 1."""
        size = len(self.class_names)
        share = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        side = float(np.clip(2.5 + 0.32 * size, 4.5, 14))
        figure = Figure(figsize=(side + 0.9, side), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.set(xlabel="prediction", ylabel="truth", title=f"{int(self.counts.sum())} images, rows sum to 1")
        if size <= MAX_LABELLED_CLASSES:
            axes.set_xticks(
                range(size), self.class_names, parse_math=False, rotation=90 if max(map(len, self.class_names)) > 2 else 0
            )
            axes.set_yticks(range(size), self.class_names, parse_math=False)
        if size <= 20:
            for i, j in zip(*np.nonzero(self.counts), strict=True):
                colour = "white" if share[i, j] > 0.5 else "black"
                axes.text(j, i, str(int(self.counts[i, j])), ha="center", va="center", color=colour, fontsize=8)
        figure.colorbar(image, ax=axes, shrink=0.8)
        figure.savefig(file, dpi=120)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 or column == "taken for" else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
