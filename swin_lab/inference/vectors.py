"""Files of vectors, as `swin-lab embed` writes them: what is in them, and whether two of them can be compared."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swin_lab.errors import UserError
from swin_lab.inference.model import readable
from swin_lab.metadata import METADATA_KEY
from swin_lab.validation import PositiveInt, check_fields, shown

BLOCK_BYTES = 2**24
"""Bytes of the vectors that are read at once, but for one vector at least."""
SHOWN = 12
"""Characters of a checkpoint's hash that a message shows."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """Contains what vectors have in common that can be compared.

    Raises:
        UserError: a value has the wrong type.
    """

    checkpoint: str
    """Hash of hyper-parameters and weights."""
    preprocessing: dict[str, Any]
    stage: int | None
    pool: str
    shape: list[PositiveInt]
    """Shape of an image's vector: (C,), or (C, H, W) for maps."""
    flip: bool

    def __post_init__(self) -> None:
        check_fields(self)


class Block(NamedTuple):
    """Contains consecutive vectors of a file."""

    first: int
    """Row of the first one."""
    vectors: np.ndarray
    """(N, C) in float32; maps are flattened."""


@dataclass(frozen=True)
class VectorFile:
    """Reads a file of vectors in blocks; see `open_vectors`."""

    file: Path
    space: Space
    rows: int

    @property
    def size(self) -> int:
        """Returns the number of values of a vector."""
        return prod(self.space.shape)

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
        """Yields all vectors in order, so many bytes at once.

        Raises:
            UserError: the file is damaged.
        """
        first = 0
        try:
            with pq.ParquetFile(self.file) as opened:
                for batch in opened.iter_batches(max(1, block_bytes // (4 * self.size)), columns=["vector"]):
                    yield Block(first, self._values(batch.column(0)))
                    first += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.file} cannot be read: {error}") from error

    def vectors(self, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Returns the vectors (N, size) of some rows, or of all if None, in float32."""
        wanted_N = np.arange(self.rows) if rows is None else np.asarray(rows, dtype=np.int64)
        vectors_NC = np.empty((len(wanted_N), self.size), dtype=np.float32)
        for first, block in self.blocks():
            is_here_N = (wanted_N >= first) & (wanted_N < first + len(block))
            vectors_NC[is_here_N] = block[wanted_N[is_here_N] - first]
        return vectors_NC

    def paths(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Returns the paths of some images."""
        found: list[str] = self._column("path").take(pa.array(rows, pa.int64())).to_pylist()
        return found

    def labels(self, rows: Sequence[int] | np.ndarray | None = None) -> list[str | None]:
        """Returns the classes of some images, or of all if None; a class that is unknown is None."""
        column = self._column("label")
        found: list[str | None] = (column if rows is None else column.take(pa.array(rows, pa.int64()))).to_pylist()
        return found

    def known_labels(self) -> np.ndarray:
        """Returns the classes of all images as an array of str (rows,).

        Raises:
            UserError: a class is unknown.
        """
        labels = self.labels()
        unknown = [row for row, label in enumerate(labels) if label is None]
        if unknown:
            raise UserError(
                f"{self.file}: {len(unknown):,} of {self.rows:,} images have no label, such as {self.paths(unknown[:1])[0]}\n"
                "Embed a folder that has one folder per class, or another source of labelled images"
            )
        return np.array(labels, dtype=np.str_)

    def _column(self, name: str) -> pa.ChunkedArray:
        try:
            return pq.read_table(self.file, columns=[name])[name]
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.file} cannot be read: {error}") from error

    def _values(self, column: pa.FixedSizeListArray) -> np.ndarray:
        values = column.flatten().to_numpy(zero_copy_only=False)
        if len(values) != len(column) * self.size or not np.isfinite(values).all():
            raise UserError(f"{self.file} is damaged: a vector is missing, or contains NaN or infinity")
        return values.astype(np.float32).reshape(len(column), self.size)


def open_vectors(path: str | Path) -> VectorFile:
    """Reads what a file of vectors says about itself.

    Raises:
        UserError: it does not exist, was not written by `swin-lab embed`, or contains no vectors.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{file} is not a file; give one that swin-lab embed has written")
    try:
        schema, rows = pq.read_schema(file), pq.read_metadata(file).num_rows
        described = json.loads((schema.metadata or {})[METADATA_KEY.encode()])
        space = Space(**{field.name: described[field.name] for field in fields(Space)})
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file} is not a file of vectors that swin-lab embed has written") from error
    kinds = [pa.list_(value, prod(space.shape)) for value in (pa.float32(), pa.float16())]
    columns = dict(zip(schema.names, schema.types, strict=True))
    if columns.get("vector") not in kinds or any(columns.get(name) != pa.string() for name in ("path", "label")):
        raise UserError(f"{file} is damaged: its columns are not path, label and vector of {prod(space.shape)} values")
    if not rows:
        raise UserError(f"{file} contains no vectors")
    return VectorFile(file, space, rows)


def check_comparable(one: VectorFile, other: VectorFile) -> None:
    """Raises UserError if the vectors of two files were not computed by the same network in the same way."""
    own, there = asdict(one.space), asdict(other.space)
    for key, value in own.items():
        if value != there[key]:
            pair = " and ".join(shown(each)[: SHOWN if key == "checkpoint" else None] for each in (value, there[key]))
            values = f" ({pair})" if len(pair) <= 100 else ""
            raise UserError(
                f"{one.file} and {other.file} cannot be compared; their {key} differs{values}\n"
                "Embed both sets of images with the same checkpoint and options"
            )


def readable_labels(*files: VectorFile) -> dict[str | None, str | None]:
    """Returns every label of some files -> how `swin-lab predict` names it: ImageNet's classes in words."""
    names = sorted({label for file in files for label in file.labels() if label is not None})
    return {None: None, **(dict(zip(names, readable(names), strict=True)) if names else {})}


def unit(vectors_NC: np.ndarray) -> np.ndarray:
    """Returns vectors of length 1, whose products are cosines; a vector of zeros remains one."""
    lengths_N1 = np.linalg.norm(vectors_NC, axis=1, keepdims=True)
    scaled: np.ndarray = vectors_NC / np.where(lengths_N1 > 0, lengths_N1, 1)
    return scaled
