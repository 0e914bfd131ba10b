"""Pairs of images whose vectors are nearly the same, found in blocks, so that memory does not grow with the files."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swin_lab.errors import UserError
from swin_lab.inference.vectors import VectorFile, readable_labels, unit
from swin_lab.inference.whole_files import written_whole

OUTER_BYTES, TILE_BYTES = 2**27, 2**26
"""Bytes of the vectors that are compared with all others at once, and of the similarities in memory."""
ROUNDING = 1e-6
"""Error of a cosine in float32: by so much, a similarity may be below the threshold."""
MAX_PAIRS = 1_000_000
"""Pairs that are collected; more of them mean that the threshold is too low."""


@dataclass(frozen=True)
class Image:
    """Names an image."""

    path: str
    label: str | None


@dataclass(frozen=True)
class Pair:
    """Contains two images and the cosine of their vectors."""

    first: Image
    second: Image
    similarity: float


def find_pairs(one: VectorFile, other: VectorFile | None, threshold: float) -> list[Pair]:
    """Finds the pairs of images of a given similarity.

    Args:
        one: a file of vectors.
        other: the other one. If None, pairs within `one` are found.
        threshold: the smallest cosine.

    Returns:
        The pairs, the most similar first.

    Raises:
        UserError: there are too many of them.
    """
    found, count = [np.empty((0, 3))], 0
    for pairs_P3 in _similar_rows(one, other, threshold):
        found.append(pairs_P3)
        count += len(pairs_P3)
        if count > MAX_PAIRS:
            raise UserError(f"more than {MAX_PAIRS:,} pairs have a similarity of at least {threshold:g}; raise --threshold")
    pairs_P3 = np.concatenate(found)
    pairs_P3 = pairs_P3[np.lexsort((pairs_P3[:, 1], pairs_P3[:, 0], -pairs_P3[:, 2]))]
    words = readable_labels(one, other or one)
    images = [
        map(Image, file.paths(rows), [words[label] for label in file.labels(rows)])
        for file, rows in zip((one, other or one), pairs_P3[:, :2].T.astype(np.int64), strict=True)
    ]
    return [Pair(*each) for each in zip(*images, pairs_P3[:, 2].tolist(), strict=True)]


def _similar_rows(one: VectorFile, other: VectorFile | None, threshold: float) -> Iterator[np.ndarray]:
    """Yields arrays (P, 3) of rows in both files and similarities."""
    for first, vectors_NC in one.blocks(OUTER_BYTES):
        units_NC = unit(vectors_NC)
        for second, others_MC in (other or one).blocks():
            if other is None and second + len(others_MC) <= first:
                continue
            others_CM = unit(others_MC).T
            step = max(1, TILE_BYTES // (4 * others_CM.shape[1]))
            for start in range(0, len(units_NC), step):
                cosines_nM = units_NC[start : start + step] @ others_CM
                i, j = np.nonzero(cosines_nM >= threshold - ROUNDING)
                pairs = np.stack([i + first + start, j + second, np.minimum(cosines_nM[i, j], 1)], axis=1)
                yield pairs if other is not None else pairs[pairs[:, 0] < pairs[:, 1]]


def write_pairs(pairs: list[Pair], out: Path) -> None:
    """Writes pairs as CSV; an existing file is replaced."""
    with written_whole(out) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(["similarity", "path", "label", "other_path", "other_label"])
        for pair in pairs:
            first, second = pair.first, pair.second
            writer.writerow([f"{pair.similarity:.6f}", first.path, first.label or "", second.path, second.label or ""])
