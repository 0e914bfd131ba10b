"""The images of an evaluation that classifiers show: confident mistakes, and predictions that are spread over the set."""

from collections.abc import Callable

import numpy as np

from swin_lab.training import Gallery, ShownImage


def mistakes_and_predictions(
    mistakes: np.ndarray, count: int, limit: int, legend: str, shown: Callable[[int], ShownImage]
) -> dict[str, Gallery]:
    """Returns both galleries, without those that are empty.

    Args:
        mistakes: rows of wrong predictions, the most confident one first.
        count: number of rows.
        limit: number of images of a gallery at most.
        legend: explains the captions.
        shown: row -> image and caption.
    """
    spread = np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(int))
    rows = {
        "mistakes": ("The most confident mistakes", mistakes[:limit]),
        "predictions": ("Predictions", spread),
    }
    return {
        name: Gallery(f"{title} ({legend})", [shown(int(row)) for row in chosen])
        for name, (title, chosen) in rows.items()
        if len(chosen)
    }
