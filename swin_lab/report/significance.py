"""Whether runs that were evaluated on the same images differ by more than chance: McNemar's test, Holm's correction, bootstrap.

A validation set is a sample of images. Two networks of equal accuracy in the population differ on a sample, and the more pairs
of runs are compared, the larger is the largest difference. What is tested is two trained networks, not two configurations:
training again with another seed gives another network.
"""

from dataclasses import dataclass

import numpy as np

LEVEL = 0.05
"""Probability with which any of the pairs of runs of equal accuracy is called different, at most."""
DRAWS = 2000
"""Number of bootstrap samples."""


@dataclass(frozen=True)
class Pairs:
    """Compares every pair of R runs."""

    images: int
    wins: np.ndarray
    """(R, R), [i, j]: number of images that run i classifies correctly and run j does not."""
    p: np.ndarray
    """(R, R): p-value of McNemar's exact test; 1 on the diagonal."""
    adjusted: np.ndarray
    """(R, R): p-value after Holm's correction over all R (R - 1) / 2 pairs."""

    @property
    def different(self) -> np.ndarray:
        """Returns which pairs differ: (R, R), bool."""
        return self.adjusted < LEVEL


def compare_pairs(correct_RN: np.ndarray) -> Pairs:
    """Compares the accuracy of every pair of runs.

    Args:
        correct_RN: (runs, images), bool: whether a run classifies an image correctly.
    """
    correct = correct_RN.astype(np.float32)  # BLAS multiplies floats; counts below 2^24 are exact.
    wins = np.rint(correct @ (1 - correct).T).astype(np.int64)
    p = mcnemar(wins, wins.T)
    upper = np.triu_indices(len(wins), k=1)
    adjusted = np.ones_like(p)
    adjusted[upper] = holm(p[upper])
    adjusted.T[upper] = adjusted[upper]
    return Pairs(correct_RN.shape[1], wins, p, adjusted)


def mcnemar(only_first: np.ndarray, only_second: np.ndarray) -> np.ndarray:
    """Returns the p-values of McNemar's exact test, two-sided.

    Under equal accuracy, each image on which only one of two runs is right is a toss of a fair coin (McNemar 1947), so that
    their number has a binomial distribution.

    Args:
        only_first: numbers of images, of any shape, that only the first run of a pair classifies correctly.
        only_second: the same of the second run.
    """
    from scipy.stats import binom

    return np.minimum(2 * binom.cdf(np.minimum(only_first, only_second), only_first + only_second, 0.5), 1)


def holm(p: np.ndarray) -> np.ndarray:
    """Returns p-values that are corrected for their number (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and none becomes smaller than those before it.

    Args:
        p: (m,).
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected


def difference_interval(
    only_first: np.ndarray, only_second: np.ndarray, images: int, *, level: float = 1 - LEVEL, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bootstrap interval (percentiles) of the difference of two accuracies, first minus second.

    Images are drawn with replacement, for both runs the same ones. The difference depends only on how many of them are of those
    that one run alone classifies correctly, so that drawing these two numbers is drawing images.

    Args:
        only_first: (P,), numbers of images that only the first run of a pair classifies correctly.
        only_second: (P,), the same of the second run.
        images: size of the set.
        level: probability of the interval, for each pair by itself.
        seed: of the random numbers.

    Returns:
        Lower and upper bounds, each (P,), as fractions.
    """
    generator = np.random.default_rng(seed)
    shares = np.stack([only_first, only_second, images - only_first - only_second], axis=-1) / images
    drawn_DP3 = generator.multinomial(images, shares, size=(DRAWS, len(only_first)))
    differences_DP = (drawn_DP3[..., 0] - drawn_DP3[..., 1]) / images
    low, high = np.quantile(differences_DP, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
