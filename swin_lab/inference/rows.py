"""Tables of predictions, written row by row as CSV, JSON or parquet, or printed."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from swin_lab.errors import UserError
from swin_lab.report import print_table

Row = dict[str, Any]
"""path, label (a name or None), and class_1, probability_1, class_2 and so on; or the lists classes and probabilities."""
Write = Callable[[Sequence[Row]], None]

LIST_SEPARATOR = "|"
"""Separates the entries of a list in CSV."""
ROWS_AT_ONCE = 4096
"""Rows of a row group of parquet."""
PRINTED_AT_ONCE = 200
"""Images of a printed table; its columns are fitted to them."""


def columns(top: int | None) -> list[str]:
    """Returns the names of the columns for a number of classes per image. If None, every image has lists of its own length."""
    if top is None:
        return ["path", "label", "classes", "probabilities"]
    ranks = range(1, top + 1)
    return ["path", "label", *(f"{name}_{rank}" for rank in ranks for name in ("class", "probability"))]


def check_format(file: Path) -> None:
    """Raises UserError if the ending of a file is that of no format."""
    if file.suffix.lower() not in FORMATS:
        raise UserError(f"{file.name}: choose the ending {', '.join(FORMATS)}")


@contextmanager
def printed(top: int | None, with_labels: bool) -> Iterator[Write]:
    """Prints a table of rows, with a line for each class."""
    left = ["image", "label", "class"] if with_labels else ["image", "class"]
    kept: list[Row] = []

    def flush() -> None:
        lines = [line for row in kept for line in _lines(row, top, with_labels)]
        print_table([*left, "probability"], lines, left=left, framed=False)
        kept.clear()

    def write(rows: Sequence[Row]) -> None:
        kept.extend(rows)
        if len(kept) >= PRINTED_AT_ONCE:
            flush()

    yield write
    if kept:
        flush()


def _lines(row: Row, top: int | None, with_labels: bool) -> Iterator[list[str]]:
    if top is None:
        found = [[name, f"{value:.2%}"] for name, value in zip(row["classes"], row["probabilities"], strict=True)]
        found = found or [["none", ""]]
    else:
        found = [[row[f"class_{rank}"], f"{row[f'probability_{rank}']:.2%}"] for rank in range(1, top + 1)]
    for rank, cells in enumerate(found):
        first = ["", ""] if rank else [row["path"], row["label"] or ""]
        yield [*first[: 1 + with_labels], *cells]


@contextmanager
def csv_rows(file: Path, top: int | None) -> Iterator[Write]:
    """Writes rows as CSV with a header; what is a list has its entries between `LIST_SEPARATOR`."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, columns(top), lineterminator="\n")
        writer.writeheader()
        yield lambda rows: writer.writerows(map(_joined, map(_rounded, rows)))


@contextmanager
def json_rows(file: Path, top: int | None) -> Iterator[Write]:
    """Writes rows as a list of objects, one per line."""
    with file.open("w", encoding="utf-8") as opened:
        opened.write("[")
        separator = "\n"

        def write(rows: Sequence[Row]) -> None:
            nonlocal separator
            for row in rows:
                opened.write(separator + json.dumps(_rounded(row), ensure_ascii=False))
                separator = ",\n"

        yield write
        opened.write("\n]\n")


@contextmanager
def parquet_rows(file: Path, top: int | None) -> Iterator[Write]:
    """Writes rows as parquet."""
    types = {"classes": pa.list_(pa.string()), "probabilities": pa.list_(pa.float32())}
    of_rank = {True: pa.float32(), False: pa.string()}
    schema = pa.schema([(name, types.get(name, of_rank[name.startswith("probability")])) for name in columns(top)])
    kept: list[Row] = []
    with pq.ParquetWriter(file, schema) as writer:

        def write(rows: Sequence[Row]) -> None:
            kept.extend(rows)
            if len(kept) >= ROWS_AT_ONCE:
                flush()

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(kept, schema))
            kept.clear()

        yield write
        flush()


def _rounded(row: Row) -> Row:
    """Returns a row with probabilities of six significant digits."""
    return {name: _short(value) for name, value in row.items()}


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(entry) for entry in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _joined(row: Row) -> Row:
    """Returns a row with lists as text."""
    return {name: LIST_SEPARATOR.join(map(str, value)) if isinstance(value, list) else value for name, value in row.items()}


FORMATS: dict[str, Callable[[Path, int | None], AbstractContextManager[Write]]] = {
    ".csv": csv_rows,
    ".json": json_rows,
    ".parquet": parquet_rows,
}
"""Ending of a file -> what writes it."""
