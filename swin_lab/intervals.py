"""Intervals of accuracies and of means: how far they would be off on other images of the same kind."""

from math import sqrt
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
"""Probability with which an interval contains the value on all images of the kind."""


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Returns the bounds of the score interval of Wilson (1927), which holds for few images and for accuracies of 0 and 1, too.

    Args:
        correct: number of images that are right.
        images: number of all images, at least 1.
    """
    from scipy.stats import binomtest  # takes a second to import

    found = binomtest(correct, images).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def interval_of_mean(values: np.ndarray) -> tuple[float, float]:
    """Returns the bounds of the interval of a mean by the central limit theorem, which needs tens of values.

    Args:
        values: (N,) independent values, N at least 2.
    """
    mean = float(values.mean())
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(values.std(ddof=1)) / sqrt(len(values))
    return mean - half, mean + half
