"""Calibration of probabilities: how often predictions of a confidence are right."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from swin_lab.report.figures import write_figure

BINS = 15
"""Number of bins of equal width, as in arXiv 1706.04599."""


@dataclass(frozen=True)
class Reliability:
    """Contains confidence and accuracy of the predictions in each of `BINS` bins of the confidence.

    Args:
        images: (BINS,) number of predictions.
        confidence: (BINS,) their mean confidence; 0 in an empty bin.
        accuracy: (BINS,) share of them that is right; 0 in an empty bin.
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Returns the expected calibration error: the mean distance of confidence and accuracy (arXiv 1706.04599, eq. 3)."""
        return float((self.images * np.abs(self.confidence - self.accuracy)).sum() / self.images.sum())


def reliability(confidence: np.ndarray, correct: np.ndarray) -> Reliability:
    """Compares confidence and accuracy.

    Args:
        confidence: (N,) probabilities of the predicted classes, 0 to 1.
        correct: (N,) whether the predictions are right.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    images, sums, right = (
        np.bincount(bins, weights=weights, minlength=BINS) for weights in (np.ones(len(bins)), confidence, correct)
    )
    count = np.maximum(images, 1)
    return Reliability(images.astype(int), sums / count, right / count)


def draw_reliability(curve: Reliability, file: Path, *, title: str) -> None:
    """Writes a PNG: accuracy by confidence above, the number of images below.

    Args:
        curve: what is drawn.
        file: the image; its folder exists.
        title: above the plot; the expected calibration error follows.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(5.2, 5.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}, expected calibration error {curve.ece:.2%}", parse_math=False, fontsize="medium")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    centres, width = (np.arange(BINS) + 0.5) / BINS, 0.92 / BINS
    filled = curve.images > 0
    upper.bar(centres[filled], curve.accuracy[filled], width, color="#9dbfda", label="accuracy")
    upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1.2, label="perfect calibration")
    upper.plot(
        curve.confidence[filled], curve.accuracy[filled], "o", color="#e69f00", markeredgecolor="black", label="mean confidence"
    )
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(loc="upper left", fontsize="small")
    lower.bar(centres, curve.images, width, color="#b8c4ce")
    lower.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    lower.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in (upper, lower):
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.spines[["top", "right"]].set_visible(False)
    upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    write_figure(figure, file, dpi=120)
