"""Parquet files that are too large for memory: an image is read together with its row group."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from swin_lab.errors import UserError


class RowGroupImages:
    """Rows of parquet files on disk, each an encoded image.

    A parquet file can only be read by whole row groups, of which the last is cached. Shuffled training therefore reads each
    group once for every image in it; `swin-lab data pack` writes shards from which images are read one by one.

    Args:
        files: the files; rows are counted over all of them.
        columns: names of the image column and the label column; if the latter is None, all labels are -1.
        rows: (N,) rows that belong to this set; if None, all rows.
        class_names: names of the classes, of which a list column has any number per row.
    """

    def __init__(
        self,
        files: list[Path],
        columns: tuple[str, str | None],
        rows: np.ndarray | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        self.files = files
        self.columns = columns
        self.class_names = class_names
        groups = [
            (number, group, metadata.row_group(group).num_rows)
            for number, metadata in enumerate(map(pq.read_metadata, files))
            for group in range(metadata.num_row_groups)
        ]
        table = np.array(groups, dtype=np.int64).reshape(-1, 3)
        self.file_of_group, self.group_in_file = table[:, 0], table[:, 1]
        self.first_rows = np.concatenate([[0], np.cumsum(table[:, 2])])
        self.rows = np.arange(self.first_rows[-1]) if rows is None else rows
        if len(self.rows) == 0:
            raise UserError(f"{files[0]} has no rows")
        self.labels = self._read_labels()[self.rows]

    def select(self, indices: np.ndarray) -> "RowGroupImages":
        """Returns the images at the given indices."""
        return RowGroupImages(self.files, self.columns, self.rows[indices], self.class_names)

    @property
    def images_per_group(self) -> float:
        """Returns the average number of images in a row group."""
        return float(self.first_rows[-1]) / len(self.file_of_group)

    def encoded(self, index: int) -> bytes:
        """Reads the row group of an image, and returns the bytes of the image."""
        row = int(self.rows[index])
        group = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        file = self.files[int(self.file_of_group[group])]
        column = _group(file, int(self.group_in_file[group]), self.columns[0], os.getpid())
        return image_bytes(column[row - int(self.first_rows[group])].as_py())

    def name(self, index: int) -> str:
        """Returns the file of an image and its row in the file."""
        row = int(self.rows[index])
        group = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        number = int(self.file_of_group[group])
        first = int(self.first_rows[int(np.searchsorted(self.file_of_group, number))])
        return f"{self.files[number]} row {row - first}"

    def _read_labels(self) -> np.ndarray:
        if self.columns[1] is None:
            return np.full(self.first_rows[-1], -1)
        return labels_of(read_column(self.files, self.columns[1]), self.files[0].parent, self.columns[1], self.class_names)


def read_column(files: Sequence[Path], column: str) -> pa.ChunkedArray:
    """Reads a column of all files; raises UserError if a file cannot be read."""
    tables = []
    for file in files:
        try:
            tables.append(pq.read_table(file, columns=[column]).replace_schema_metadata())
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file} cannot be read as parquet: {error}") from error
    return pa.concat_tables(tables)[column]


def labels_of(column: pa.ChunkedArray, folder: Path, name: str, class_names: Sequence[str]) -> np.ndarray:
    """Returns class indices (N,); of a list column, 1 for each class in the list of a row, (N, classes) of uint8.

    Args:
        column: class indices, or lists of class indices or names.
        folder: folder of the files, for messages.
        name: name of the column, for messages.
        class_names: names of the classes, for a list column.

    Raises:
        UserError: a row has no label, not even an empty list, or a list has something else than these classes.
    """
    if column.null_count:
        raise UserError(f"{folder}: {column.null_count} rows have no label in column {name!r}")
    if not is_list(column.type):
        indices: np.ndarray = column.to_numpy().astype(np.int64)
        return indices
    rows = np.repeat(np.arange(len(column)), pc.list_value_length(column).to_numpy())
    entries = pc.list_flatten(column)
    if not pa.types.is_integer(entries.type):
        entries = pc.index_in(entries, value_set=pa.array(class_names, entries.type))
    classes = pc.fill_null(entries, -1).to_numpy()
    wrong = np.flatnonzero((classes < 0) | (classes >= len(class_names)))
    if len(wrong):
        row = int(rows[wrong[0]])
        raise UserError(
            f"{folder}: column {name!r} has {str(column[row].as_py())[:100]} in row {row}, and a list may have the "
            f"{len(class_names)} classes only"
        )
    labels = np.zeros((len(column), len(class_names)), dtype=np.uint8)
    labels[rows, classes] = 1
    return labels


def is_list(kind: pa.DataType) -> bool:
    """Returns whether a column has lists of class indices or of class names."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return bool(pa.types.is_integer(kind.value_type) or pa.types.is_string(kind.value_type))


def image_bytes(value: object) -> bytes:
    """Returns the encoded image of a cell, which is a struct {bytes, path} or bytes; raises OSError if there are no bytes."""
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(encoded, bytes):
        raise OSError("the row contains no image bytes")
    return encoded


@lru_cache(maxsize=2)
def _group(file: Path, group: int, column: str, process: int) -> pa.ChunkedArray:
    """Reads the images of a row group; `process` keeps the cached files of a parent out of a forked process."""
    with pq.ParquetFile(file) as opened:
        return opened.read_row_group(group, columns=[column])[column]
