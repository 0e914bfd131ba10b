"""The images of a file of vectors that are nearest to given ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from swin_lab.errors import UserError
from swin_lab.inference.inputs import Inputs
from swin_lab.inference.model import InferenceModel, VectorKind
from swin_lab.inference.neighbours import nearest
from swin_lab.inference.progress import named_unreadable
from swin_lab.inference.stream import chunks_of, compute
from swin_lab.inference.vectors import SHOWN, VectorFile, readable_labels
from swin_lab.validation import check_value


@dataclass(frozen=True)
class Queries:
    """Contains the images for which near ones are searched."""

    names: list[str]
    labels: list[str | None]
    vectors: np.ndarray
    """(Q, C) in float32"""
    own_rows: list[int] | None
    """Their rows in the file, which are left out of the results; None for images from elsewhere."""


@dataclass(frozen=True)
class Match:
    """Describes an image that was found."""

    path: str
    label: str | None
    similarity: float
    """The cosine of the two vectors."""


def check_checkpoint(model: InferenceModel, vectors: VectorFile) -> None:
    """Raises UserError if a network has not computed the vectors of a file, or its preprocessing differs from then."""
    own, there = model.weights_hash(), vectors.space.checkpoint
    if own != there:
        raise UserError(
            f"--checkpoint: its weights ({own[:SHOWN]}) are not those that have computed {vectors.file} ({there[:SHOWN]})\n"
            "Give that checkpoint, with --ema if that was used, or embed the images again"
        )
    if model.preprocessing.as_dict() != vectors.space.preprocessing:
        raise UserError(f"--checkpoint: its preprocessing differs from that of {vectors.file}; embed the images again")


def embedded(model: InferenceModel, inputs: Inputs, vectors: VectorFile) -> Queries:
    """Computes the vectors of images as those of a file were computed; images that cannot be read are named and left out.

    Raises:
        UserError: no image can be read.
    """
    kind = VectorKind(vectors.space.stage, check_value("pool", vectors.space.pool, VectorKind.__annotations__["pool"]))
    found, unreadable = [], []
    for outputs in compute(model, partial(model.vectors, kind=kind), inputs, chunks_of(len(inputs), model.batch), 0):
        unreadable += outputs.unreadable
        if outputs.indices:
            found.append((outputs.indices, outputs.values.reshape(len(outputs.indices), -1)))
    named_unreadable(unreadable)
    if not found:
        raise UserError("none of the images can be read")
    rows = [index for indices, _ in found for index in indices]
    words = readable_labels(vectors)
    names, labels = [inputs.name(row) for row in rows], [words.get(label := inputs.label(row), label) for row in rows]
    return Queries(names, labels, np.concatenate([values for _, values in found]), None)


def of_rows(vectors: VectorFile, rows: Sequence[int]) -> Queries:
    """Returns images of the file itself.

    Raises:
        UserError: there is no such row.
    """
    for row in rows:
        if row >= vectors.rows:
            raise UserError(f"--row {row}: {vectors.file} has the rows 0 to {vectors.rows - 1}")
    words = readable_labels(vectors)
    return Queries(vectors.paths(rows), [words[label] for label in vectors.labels(rows)], vectors.vectors(rows), list(rows))


def search(vectors: VectorFile, queries: Queries, top: int) -> list[list[Match]]:
    """Returns the most similar images for every query, the most similar first; fewer than `top` if the file has fewer."""
    own = queries.own_rows
    found = nearest(queries.vectors, vectors.blocks(), min(top + (own is not None), vectors.rows))
    words, all_rows = readable_labels(vectors), found.rows.reshape(-1)
    labels = [words[label] for label in vectors.labels(all_rows)]
    matches = [Match(*each) for each in zip(vectors.paths(all_rows), labels, found.cosines.reshape(-1).tolist(), strict=True)]
    results = []
    for i, rows in enumerate(found.rows):
        own_row = None if own is None else own[i]
        some = matches[i * len(rows) : (i + 1) * len(rows)]
        results.append([match for match, row in zip(some, rows, strict=True) if row != own_row][:top])
    return results
