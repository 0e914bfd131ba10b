"""Nearest vectors, votes and near-duplicates, against brute force."""

from pathlib import Path

import numpy as np
import pytest
from vector_files import write_vectors

from swin_lab.errors import UserError
from swin_lab.inference import duplicates
from swin_lab.inference.accuracy import Accuracy, held_out_rows
from swin_lab.inference.neighbours import Neighbours, nearest, vote, without_themselves
from swin_lab.inference.vectors import Block, open_vectors, unit


def random(count: int, size: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_the_nearest_of_several_blocks_are_those_of_brute_force(metric: str, index: str) -> None:
    if index == "faiss":
        pytest.importorskip("faiss")
    vectors, queries = random(50), random(7, seed=1)
    blocks = [Block(0, vectors[:3]), Block(3, vectors[3:40]), Block(40, vectors[40:])]
    found = nearest(queries, blocks, 6, metric, index)
    a, b = (unit(queries), unit(vectors)) if metric == "cosine" else (queries, vectors)
    distances = np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=2)
    np.testing.assert_array_equal(found.rows, np.argsort(distances, axis=1)[:, :6])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :6], atol=1e-3)


def test_cosines_are_those_of_the_vectors() -> None:
    vectors, queries = random(20), random(3, seed=1)
    found = nearest(queries, [Block(0, vectors)], 20)
    expected = np.take_along_axis(unit(queries) @ unit(vectors).T, found.rows, 1)
    np.testing.assert_allclose(found.cosines, expected, atol=1e-6)


def test_a_vector_of_zeros_is_similar_to_none() -> None:
    found = nearest(np.zeros((1, 2), np.float32), [Block(0, np.eye(2, dtype=np.float32))], 2)
    assert np.isfinite(found.distances).all()


def test_most_neighbours_win_and_the_nearest_decides_between_equally_many() -> None:
    classes = np.array([[2, 1, 1, 0], [0, 1, 1, 0], [3, 2, 1, 0], [1, 0, 0, 1]])
    assert vote(classes).tolist() == [1, 0, 3, 1]


def test_a_row_is_no_neighbour_of_itself_even_among_many_equal_vectors() -> None:
    vectors = np.concatenate([np.ones((5, 2), np.float32), random(3, 2)])
    found = nearest(vectors, [Block(0, vectors)], 3)
    others = without_themselves(found)
    assert others.shape == (8, 2)
    assert not (others == np.arange(8)[:, None]).any()


def test_the_row_that_is_left_out_is_the_last_one_if_the_own_row_is_not_found() -> None:
    found = Neighbours(np.array([[4, 5, 6], [1, 0, 2]]), np.zeros((2, 3)))
    assert without_themselves(found).tolist() == [[4, 5], [0, 2]]


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [(354, 360, 0.9641, 0.9923), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)],  # By the formula, z = 1.96.
)
def test_intervals_are_those_of_wilson(correct: int, images: int, low: float, high: float) -> None:
    assert Accuracy(correct, images).interval == pytest.approx((low, high), abs=1e-4)


def test_a_fifth_of_each_class_is_held_out_and_one_image_of_a_pair() -> None:
    classes = np.repeat([0, 1, 2], [20, 2, 1])
    kept, held_out = held_out_rows(classes, seed=0)
    assert np.bincount(classes[held_out], minlength=3).tolist() == [4, 1, 0]
    assert sorted([*kept, *held_out]) == list(range(23))


@pytest.mark.parametrize("within", [False, True])
def test_pairs_are_those_of_brute_force_in_any_blocks(within: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "OUTER_BYTES", 4 * 3 * 8)
    monkeypatch.setattr(duplicates, "TILE_BYTES", 4 * 30)
    one = write_vectors(tmp_path / "a.parquet", random(30, 3))
    other = write_vectors(tmp_path / "b.parquet", np.concatenate([random(4, 3)[:2] * 3, random(20, 3, seed=2)]))
    found = duplicates.find_pairs(open_vectors(one), None if within else open_vectors(other), 0.9)
    a = unit(open_vectors(one).vectors())
    cosines = a @ (a if within else unit(open_vectors(other).vectors())).T
    expected = [(i, j) for i, j in np.argwhere(cosines >= 0.9).tolist() if not within or i < j]
    pairs = [(int(pair.first.path[-7:-4]), int(pair.second.path[-7:-4])) for pair in found]
    assert sorted(pairs) == expected
    assert len(expected) > 5
    similarities = [pair.similarity for pair in found]
    assert similarities == sorted(similarities, reverse=True)
    assert within or similarities[:2] == pytest.approx([1, 1], abs=1e-6)


def test_a_threshold_that_too_many_pairs_reach_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 10)
    file = open_vectors(write_vectors(tmp_path / "a.parquet", np.ones((6, 2), np.float32)))
    with pytest.raises(UserError, match=r"more than 10 pairs have .* raise --threshold"):
        duplicates.find_pairs(file, None, 0.9)
