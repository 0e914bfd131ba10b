"""Statistics of paired runs against scipy and brute force, and how often equal runs are called different."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from swin_lab.report.significance import compare_pairs, difference_interval, holm, mcnemar


def correlated_runs(generator: np.random.Generator, runs: int, images: int, accuracy: float, shared: float) -> np.ndarray:
    """Returns which of N images R equally accurate runs classify correctly: (R, N), bool.

    Each run is right where a score of the image, of which a part is the image's own difficulty, is above a threshold, as real
    networks fail on the same difficult images.

    Args:
        shared: correlation of the scores of two runs.
    """
    difficulty_N, own_RN = generator.normal(size=images), generator.normal(size=(runs, images))
    return np.sqrt(shared) * difficulty_N + np.sqrt(1 - shared) * own_RN < stats.norm.ppf(accuracy)


def test_counts_of_pairs_equal_brute_force() -> None:
    correct_RN = np.random.default_rng(0).random((4, 50)) < 0.7
    pairs = compare_pairs(correct_RN)
    for i in range(4):
        for j in range(4):
            assert pairs.wins[i, j] == sum(bool(a) and not b for a, b in zip(correct_RN[i], correct_RN[j], strict=True))


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (20, 20), (5, 31), (400, 480)])
def test_p_values_are_those_of_the_exact_binomial_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(np.array(first), np.array(second)) == pytest.approx(expected, rel=1e-9)


def test_holms_correction_equals_its_definition() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    smallest_first = sorted(p)
    steps = [min(1, max((len(p) - j) * smallest_first[j] for j in range(i + 1))) for i in range(len(p))]
    assert holm(p) == pytest.approx([steps[smallest_first.index(value)] for value in p], rel=1e-12)


def test_the_interval_equals_that_of_scipys_bootstrap_over_images() -> None:
    """Both are random: bounds of 400 images lie on a grid of 1/400, and may be two steps apart."""
    difference_N = np.repeat([1, -1, 0], [40, 22, 338])
    options = {"method": "percentile", "n_resamples": 4000, "confidence_level": 0.95}
    expected = stats.bootstrap((difference_N,), np.mean, rng=np.random.default_rng(1), **options).confidence_interval
    low, high = difference_interval(np.array([40]), np.array([22]), 400)
    assert (low[0], high[0]) == (pytest.approx(expected.low, abs=2 / 400), pytest.approx(expected.high, abs=2 / 400))


def test_of_1000_pairs_of_equal_runs_at_most_5_percent_are_called_different() -> None:
    generator = np.random.default_rng(0)
    called = 0
    for i in range(1000):
        accuracy, images = ((0.7, 2000), (0.9, 1000), (0.98, 360), (0.5, 200))[i % 4]
        pairs = compare_pairs(correlated_runs(generator, 2, images, accuracy, shared=0.8))
        called += bool(pairs.different[0, 1])
    assert 0 < called <= 50


def test_among_10_equal_runs_any_two_are_called_different_in_at_most_5_percent_of_sets() -> None:
    """Without the correction for 45 pairs, it would be most sets: the best of many is compared with the worst."""
    generator = np.random.default_rng(0)
    sets = [compare_pairs(correlated_runs(generator, 10, 500, 0.8, shared=0.6)) for _ in range(200)]
    assert sum(pairs.different.any() for pairs in sets) <= 10
    assert sum((pairs.p < 0.05).any() for pairs in sets) >= 80


def test_a_large_difference_is_found() -> None:
    generator = np.random.default_rng(0)
    better, worse = correlated_runs(generator, 1, 1000, 0.9, 0)[0], correlated_runs(generator, 1, 1000, 0.8, 0)[0]
    assert compare_pairs(np.stack([better, worse])).different[0, 1]


def test_corrected_p_values_of_pairs_are_symmetric_and_one_with_itself() -> None:
    pairs = compare_pairs(np.random.default_rng(0).random((5, 80)) < 0.6)
    assert (pairs.adjusted == pairs.adjusted.T).all()
    assert (np.diag(pairs.adjusted) == 1).all()
    raw = [pairs.p[i, j] for i, j in combinations(range(5), 2)]
    assert [pairs.adjusted[i, j] for i, j in combinations(range(5), 2)] == pytest.approx(holm(np.array(raw)))
