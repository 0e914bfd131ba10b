"""A matrix of counts as an image, such as a confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from swin_lab.report.figures import write_figure

MAX_ROWS = 40
"""Number of rows above which rows are drawn in groups."""
GROUPS = 25
"""Number of groups."""
MAX_NUMBERED_ROWS = 20
"""Number of rows above which the cells have no numbers."""
MAX_NAME = 22
"""Number of characters of a name above which it is cut off."""
PAIRS = 20
"""Number of pairs that are listed beside groups, within which a pair cannot be seen."""


def draw_heatmap(counts: np.ndarray, names: Sequence[str], file: Path, *, row: str, column: str, title: str) -> None:
    """Writes a PNG in which every row is scaled to a sum of 1.

    More than `MAX_ROWS` rows are drawn in groups of rows that are often confused, beside the most frequent single pairs.

    Args:
        counts: (N, N), [row, column].
        names: one name per row and column.
        file: the image; its folder exists.
        row: label of the vertical axis.
        column: label of the horizontal axis.
        title: above the plot.

    Raises:
        UserError: the file cannot be written.
    """
    cut = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in names]
    shown, labels = grouped(counts, cut)
    groups = len(labels) < len(names)
    size = len(labels)
    side = float(np.clip(3.0 + 0.32 * size, 4.8, 15))
    figure = Figure(figsize=(side + 1.2 + (5.5 if groups else 0), side), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, parse_math=False)
    axes, *others = figure.subplots(1, 2, width_ratios=(2.6, 1)) if groups else [figure.add_subplot()]
    share = shown / np.maximum(shown.sum(axis=1, keepdims=True), 1)
    # The square root makes shares of a few percent visible.
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    grouping = f"\n{len(names):,} classes in {size} groups of often confused ones, named after one of them" if groups else ""
    axes.set(xlabel=column, ylabel=row)
    axes.set_title(f"{int(counts.sum()):,} images{grouping}", fontsize="medium")
    axes.set_xticks(range(size), labels, parse_math=False, rotation=90 if max(map(len, labels)) > 2 else 0)
    axes.set_yticks(range(size), labels, parse_math=False)
    if size <= MAX_NUMBERED_ROWS:
        for i, j in zip(*np.nonzero(shown), strict=True):
            colour = "white" if share[i, j] > 0.35 else "black"
            axes.text(j, i, str(int(shown[i, j])), ha="center", va="center", color=colour, fontsize=8)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1, decimals=0))
    bar.set_label(f"share of the images of the {'group' if groups else 'row'}")
    if others:
        _draw_pairs(others[0], counts, cut)
    write_figure(figure, file, dpi=120)


def grouped(counts: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Returns counts and names, of more than `MAX_ROWS` rows those of groups of rows that are often confused.

    Args:
        counts: (N, N), [row, column].
        names: one name per row and column; a group has that of one of its rows.
    """
    if len(names) <= MAX_ROWS:
        return counts, list(names)
    groups = group_rows(counts)
    sums = np.array([[counts[np.ix_(rows, columns)].sum() for columns in groups] for rows in groups])
    return sums, [names[group[0]] + (f" +{len(group) - 1}" if len(group) > 1 else "") for group in groups]


def group_rows(counts: np.ndarray) -> list[np.ndarray]:
    """Returns the rows of a matrix of counts in groups of about equal size, in which similar rows are next to each other.

    Rows are similar if their counts are often in each other's column; they are ordered by hierarchical clustering (average
    linkage, optimal order of the leaves).

    Args:
        counts: (N, N), [row, column].
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    distance = 1 - np.clip(share + share.T, 0, 1)
    np.fill_diagonal(distance, 0)
    order = leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=len(counts) <= 300))
    return np.array_split(order, GROUPS)


def _draw_pairs(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    """Draws the largest counts beside the diagonal as bars."""
    errors = counts - np.diag(np.diag(counts))
    largest = [place for place in np.argsort(-errors, axis=None, kind="stable")[:PAIRS] if errors.flat[place] > 0]
    pairs = [divmod(int(place), len(names)) for place in largest]
    axes.barh(range(len(pairs)), [int(errors[pair]) for pair in pairs], color="#2f6690")
    axes.set_yticks(range(len(pairs)), [f"{names[i]} → {names[j]}" for i, j in pairs], parse_math=False, fontsize="small")
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("images")
    axes.set_title("most frequent confusions", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
