"""The nearest vectors, and the classes that they vote for."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Literal, NamedTuple

import numpy as np

from swin_lab.errors import UserError
from swin_lab.inference.vectors import Block, unit

Metric = Literal["cosine", "euclidean"]
Index = Literal["exact", "faiss"]

VOTE_VALUES = 2**24
"""Comparisons of the classes of neighbours that are in memory at once."""


class Neighbours(NamedTuple):
    """Contains the nearest vectors of each of Q queries, the nearest first, of equal ones that of the first row."""

    rows: np.ndarray
    """(Q, k)"""
    distances: np.ndarray
    """(Q, k), Euclidean; for cosines, between vectors of length 1."""

    @property
    def cosines(self) -> np.ndarray:
        """Returns the cosines of vectors of length 1: |a - b|^2 = 2 - 2 cos."""
        cosines: np.ndarray = 1 - self.distances**2 / 2
        return cosines


def check_index(index: Index) -> None:
    """Raises UserError if the package of an index is not installed."""
    if index == "faiss" and find_spec("faiss") is None:
        raise UserError("--index faiss needs the package faiss-cpu: pip install 'swin-lab[faiss]'; or choose --index exact")


def nearest(
    queries_QC: np.ndarray, blocks: Iterable[Block], k: int, metric: Metric = "cosine", index: Index = "exact"
) -> Neighbours:
    """Finds the nearest vectors among blocks of them.

    Args:
        queries_QC: vectors in float32.
        blocks: the vectors among which they are found, `k` at least.
        k: number of neighbours.
        metric: cosine ignores the lengths of vectors.
        index: exact is scikit-learn's search, faiss that of faiss.IndexFlatL2. Both compute all distances.
    """
    find = _faiss_search if index == "faiss" else _exact_search
    scale = unit if metric == "cosine" else np.asarray
    queries_QC = np.ascontiguousarray(scale(queries_QC), dtype=np.float32)
    found = Neighbours(np.empty((len(queries_QC), 0), dtype=np.int64), np.empty((len(queries_QC), 0)))
    for first, vectors_NC in blocks:
        new = find(queries_QC, np.ascontiguousarray(scale(vectors_NC)), min(k, len(vectors_NC)))
        rows = np.concatenate([found.rows, new.rows + first], axis=1)
        distances = np.concatenate([found.distances, new.distances], axis=1)
        order = np.lexsort((rows, distances), axis=1)[:, :k]
        found = Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1))
    return found


def _exact_search(queries_QC: np.ndarray, vectors_NC: np.ndarray, k: int) -> Neighbours:
    from sklearn.neighbors import NearestNeighbors

    distances, rows = NearestNeighbors(algorithm="brute").fit(vectors_NC).kneighbors(queries_QC, k)
    return Neighbours(rows, distances)


def _faiss_search(queries_QC: np.ndarray, vectors_NC: np.ndarray, k: int) -> Neighbours:
    import faiss

    index = faiss.IndexFlatL2(vectors_NC.shape[1])
    index.add(vectors_NC)
    squares, rows = index.search(queries_QC, k)
    return Neighbours(rows, np.sqrt(np.maximum(squares, 0, dtype=np.float64)))


def without_themselves(found: Neighbours) -> np.ndarray:
    """Returns the rows (Q, k - 1) of the neighbours of every vector of a file, in order, without that vector itself."""
    itself_Qk = found.rows == np.arange(len(found.rows))[:, None]
    itself_Qk[~itself_Qk.any(axis=1), -1] = True  # It is not among them if more than k vectors equal it.
    rows: np.ndarray = found.rows[~itself_Qk].reshape(len(found.rows), -1)
    return rows


def vote(classes_Qk: np.ndarray) -> np.ndarray:
    """Returns the class (Q,) of most neighbours, of several such classes that of the nearest neighbour.

    Args:
        classes_Qk: the classes of the neighbours, the nearest first.
    """
    count, k = classes_Qk.shape
    step = max(1, VOTE_VALUES // k**2)
    elected = []
    for start in range(0, count, step):
        some_qk = classes_Qk[start : start + step]
        votes_qk = (some_qk[:, :, None] == some_qk[:, None, :]).sum(axis=2)
        elected.append(np.take_along_axis(some_qk, votes_qk.argmax(axis=1)[:, None], 1)[:, 0])  # argmax takes the first.
    return np.concatenate(elected)
