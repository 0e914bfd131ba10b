"""Writes a vector of every image to one parquet file: in parts, by any number of processes, through any number of kills.

A part is the vectors of consecutive images, and only depends on the plan. Every process computes the parts of its rank that do
not exist yet; whichever finds that all exist puts them together. So the file has the same bytes whatever happened before.
"""

from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import prod
from pathlib import Path
from time import perf_counter

import numpy as np

from swin_lab.errors import UserError
from swin_lab.inference.inputs import Inputs
from swin_lab.inference.model import InferenceModel, VectorKind
from swin_lab.inference.parts import DTypeName, PartFolder, Plan, vector_table
from swin_lab.inference.progress import Summary, name_loaded, named_unreadable, shown_progress
from swin_lab.inference.stream import Outputs, chunks_of, compute

IMAGES_PER_PART, IMAGES_PER_PART_ON_CPU, BYTES_PER_PART = 2048, 128, 2**26
"""A part has at most so many images or bytes, but one chunk at least. A kill costs one part, and a CPU takes seconds for it."""


@dataclass(frozen=True)
class Shard:
    """Names the process among those of a command."""

    rank: int = 0
    world_size: int = 1


def check_out(file: Path) -> None:
    """Raises UserError if a file is none of parquet, or its folder does not exist."""
    if file.suffix.lower() != ".parquet":
        raise UserError(f"{file.name}: choose the ending .parquet")
    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"{file} is a folder" if file.is_dir() else f"{file.parent} is not a folder; create it first")


def embed(
    model: InferenceModel,
    inputs: Inputs,
    out: Path,
    kind: VectorKind,
    *,
    dtype: DTypeName,
    workers: int,
    shard: Shard,
    overwrite: bool = False,
) -> Summary | None:
    """Computes the vectors of the images that are not done yet, and writes the file if no other process has work left.

    Args:
        model: the network.
        inputs: the images.
        out: a file for `check_out`.
        kind: which vectors.
        dtype: type of their values in the file.
        workers: processes that decode images.
        shard: this process.
        overwrite: whether `out`, and the parts of another command, may be replaced.

    Returns:
        What the file contains, with nothing computed if it was complete already. If None, other processes still compute.

    Raises:
        UserError: `out` exists or belongs to another command, cannot be written, or the network has no such vectors.
    """
    start = perf_counter()
    shape = model.shape(kind)
    plan = Plan.of(model, inputs, kind, shape, dtype)
    folder = PartFolder(out, plan)
    if not folder.claim(overwrite=overwrite, alone=shard.world_size == 1):
        return _summary(folder.rows(), plan, start, 0)
    name_loaded(model.lines() if shard.rank == 0 else ())
    parts = _parts(plan)
    own = {number: part for number, part in enumerate(parts) if number % shard.world_size == shard.rank}
    missing = {number: part for number, part in own.items() if not folder.has(number)}
    chunks = [chunk for part in missing.values() for chunk in part]
    total, left = (sum(map(len, some)) for some in ([chunk for part in own.values() for chunk in part], chunks))
    results = compute(model, partial(model.vectors, kind=kind), inputs, chunks, workers)
    with shown_progress(total, total - left) as advance:
        part_of = {chunk.start: number for number, part in missing.items() for chunk in part}
        for number, outputs in groupby(results, key=lambda each: part_of[each.chunk.start]):
            collected = []
            for each in outputs:
                named_unreadable(each.unreadable)
                collected.append(each)
                advance(len(each.chunk))
            folder.write(number, vector_table(plan, inputs, *_joined(collected, shape)))
    if not all(map(folder.has, range(len(parts)))):
        return None
    folder.merge(len(parts))
    return _summary(folder.rows(), plan, start, left)


def _summary(rows: int, plan: Plan, start: float, computed: int) -> Summary:
    return Summary(rows, plan.images - rows, perf_counter() - start, computed)


def _parts(plan: Plan) -> list[list[range]]:
    """Returns the chunks of every part."""
    most = IMAGES_PER_PART_ON_CPU if plan.device == "cpu" else IMAGES_PER_PART
    chunks = chunks_of(plan.images, plan.batch)
    at_once = max(1, min(most, BYTES_PER_PART // plan.bytes_per_image) // plan.batch)
    return [chunks[first : first + at_once] for first in range(0, len(chunks), at_once)]


def _joined(outputs: list[Outputs], shape: tuple[int, ...]) -> tuple[list[int], np.ndarray]:
    """Returns the images of a part that could be read, and their vectors (N, values)."""
    read = [each for each in outputs if each.indices]
    vectors = [each.values.reshape(len(each.indices), -1) for each in read] or [np.empty((0, prod(shape)), dtype=np.float32)]
    return [index for each in read for index in each.indices], np.concatenate(vectors)
