"""Files that name images and their classes, any number of classes per image: CSV, parquet, and JSON in the style of COCO."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from swin_lab.data.classes import MAX_CLASSES
from swin_lab.errors import UserError, did_you_mean, printable

DELIMITERS = {".csv": ",", ".tsv": "\t"}
FILE_NAME = "file_name"
"""Column with the names of the images, as in the metadata of image folders of Hugging Face; without it, the first column."""
ENDINGS = (*DELIMITERS, ".parquet", ".json")


@dataclass(frozen=True)
class Targets:
    """Contains the classes of the images that a file names.

    Args:
        file: the file, for messages.
        names: (N,) names of the images, each of them once.
        class_names: names of the classes.
        labels: (N, classes) of uint8, 1 for each class of an image.
    """

    file: Path
    names: list[str]
    class_names: list[str]
    labels: np.ndarray


def read_targets(file: Path, separator: str | None = None, class_names: Sequence[str] | None = None) -> Targets:
    """Reads a file of targets.

    CSV and TSV have a header, and a column of names besides either one column of 0 and 1 for each class, or one with the names
    of the classes between separators. Parquet has such columns of 0 and 1, or a list column of class names. JSON has the
    `images`, `categories` and `annotations` of COCO; an image has the categories of its annotations.

    Args:
        file: a .csv, .tsv, .parquet or .json file.
        separator: what separates class names in CSV. If None, CSV has a column for each class.
        class_names: classes that the file may name. If None, the classes of the file.

    Raises:
        UserError: the file cannot be read, names an image twice or a class that is unknown, or has a value besides 0 and 1.
    """
    kind = file.suffix.lower()
    if kind not in ENDINGS:
        raise UserError(f"{file}: targets are read from files that end in {', '.join(ENDINGS)}")
    if separator is not None and kind not in DELIMITERS:
        raise UserError(f"data.separator={separator!r} has no effect on {file.name}; it is for class names in .csv and .tsv")
    rows: np.ndarray | list[list[str]]
    try:
        if kind == ".json":
            names, found, rows = _read_coco(file)
            _check_names(file, names)
        else:
            table = pq.read_table(file) if kind == ".parquet" else _read_csv(file, DELIMITERS[kind])
            names, found, rows = _read_columns(file, table, separator)
    except UserError:
        raise
    except (OSError, pa.ArrowException, ValueError, RecursionError) as error:
        reason = printable((str(error).strip() or type(error).__name__).splitlines()[0])[:200]
        raise UserError(f"{file} cannot be read as {kind[1:]}: {reason}") from error
    known = list(found if class_names is None else class_names)
    if isinstance(rows, np.ndarray):
        return Targets(file, names, known, _in_order(file, rows, found, known))
    return Targets(file, names, known, multi_hot(rows, known, file, names))


def multi_hot(rows: Sequence[Sequence[str]], class_names: Sequence[str], file: Path, names: Sequence[str]) -> np.ndarray:
    """Returns 1 for each class of each image, (N, classes) of uint8.

    Args:
        rows: (N,) names of the classes of each image.
        class_names: all classes.
        file: for messages.
        names: (N,) names of the images, for messages.

    Raises:
        UserError: a class is unknown.
    """
    position = {name: index for index, name in enumerate(class_names)}
    labels = np.zeros((len(rows), len(class_names)), dtype=np.uint8)
    for row, classes in enumerate(rows):
        for name in classes:
            if name not in position:
                raise UserError(
                    f"{file} gives {printable(names[row])} the class {printable(name)[:100]!r}, which is not among the "
                    f"{len(class_names)} classes{did_you_mean(name, class_names)}"
                )
            labels[row, position[name]] = 1
    return labels


def _in_order(file: Path, labels: np.ndarray, found: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Returns columns in the order of the known classes; raises UserError unless the file has these classes."""
    for name in found:
        if name not in known:
            raise UserError(f"{file} has a column for {name!r}, which is not among the classes{did_you_mean(name, known)}")
    for name in known:
        if name not in found:
            raise UserError(f"{file} has no column for the class {name!r}; add it, with 0 and 1")
    position = {name: index for index, name in enumerate(found)}
    return labels[:, [position[name] for name in known]]


def _check_names(file: Path, names: Sequence[str]) -> None:
    if not names:
        raise UserError(f"{file} names no images")
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if seen.setdefault(name, row) != row:
            where = f"rows {seen[name] + 1} and {row + 1}"
            raise UserError(f"{file} names {printable(name)} twice, in {where}; remove one of them")


def _read_csv(file: Path, delimiter: str) -> pa.Table:
    """Reads all columns as text."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        header = next(csv.reader(opened, delimiter=delimiter), [])
    types = dict.fromkeys(header, pa.string())
    return pa.csv.read_csv(
        file,
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
        convert_options=pa.csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )


def _read_columns(
    file: Path, table: pa.Table, separator: str | None
) -> tuple[list[str], list[str], "np.ndarray | list[list[str]]"]:
    """Returns names of images, class names, and labels: (N, classes) of 0 and 1, or the class names of each image."""
    columns = table.column_names
    if not columns:
        raise UserError(f"{file} has no columns; it needs one of file names, and one for each class")
    repeated = next((name for name, count in Counter(columns).items() if count > 1), None)
    if repeated is not None:
        raise UserError(f"{file} has several columns named {printable(repeated)!r}; every class needs its own name")
    name_column = FILE_NAME if FILE_NAME in columns else columns[0]
    others = [name for name in columns if name != name_column]
    names = table[name_column].cast(pa.string()).to_pylist()
    if None in names:
        raise UserError(f"{file}: row {names.index(None) + 1} has no name in column {name_column!r}")
    _check_names(file, names)
    if not others:
        raise UserError(f"{file} has the column {name_column!r} only; add one column for each class, with 0 and 1")
    lists = [name for name in others if pa.types.is_list(table[name].type) or pa.types.is_large_list(table[name].type)]
    if separator is None and not lists:
        return names, others, np.stack([_zeros_and_ones(file, table[name], name, names) for name in others], axis=1)
    chosen = lists or others
    if len(chosen) > 1 and not lists:
        raise UserError(
            f"{file} has columns {chosen[0]!r} and {chosen[1]!r}, and data.separator={separator!r} is for one column of names\n"
            "If the columns have 0 and 1, leave data.separator out"
        )
    if len(chosen) > 1:
        raise UserError(f"{file} has several columns of classes, {chosen[0]!r} and {chosen[1]!r}; remove all but one")
    rows = [_words(value, separator) for value in table[chosen[0]].to_pylist()]
    if not any(rows):
        raise UserError(f"{file}: column {chosen[0]!r} names no classes; every image would have none")
    return names, sorted({name for row in rows for name in row}), rows


def _words(value: Any, separator: str | None) -> list[str]:
    """Returns the class names in a cell, text with separators or a list."""
    if separator is None:
        return [str(entry) for entry in value or () if entry is not None]
    return [word for part in value.split(separator) if (word := part.strip())]


def _zeros_and_ones(file: Path, column: pa.ChunkedArray, class_name: str, names: Sequence[str]) -> np.ndarray:
    """Returns a column as (N,) of uint8; raises UserError for any value besides 0 and 1."""
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    values = pc.utf8_trim_whitespace(column) if is_text else pc.cast(column, pa.float64())
    zero, one = ("0", "1") if is_text else (0.0, 1.0)
    valid = pc.fill_null(pc.is_in(values, value_set=pa.array([zero, one], values.type)), False)
    if not pc.all(valid).as_py():
        row = valid.to_pylist().index(False)
        value = column[row].as_py()
        hint = ""
        if isinstance(value, str) and value:
            hint = f'\nIf it contains class names, give what separates them, such as data.separator="{_separator_in(value)}"'
        raise UserError(
            f"{file}: row {row + 1} ({printable(str(names[row]))}) has {printable(repr(value))[:100]} in column "
            f"{class_name!r}; write 1 if the image has this label, else 0" + hint
        )
    ones: np.ndarray = pc.equal(values, one).to_numpy()
    return ones.astype(np.uint8)


def _separator_in(value: str) -> str:
    return next((mark for mark in "|;, " if mark in value), "|")


def _read_coco(file: Path) -> tuple[list[str], list[str], list[list[str]]]:
    """Returns names of images, class names in the order of the categories' numbers, and the class names of each image."""
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict):
        raise UserError(f"{file} is not in the style of COCO: it has no images, categories and annotations")
    images = dict(_pairs(file, content, "images", "id", "file_name"))
    pairs = _pairs(file, content, "categories", "id", "name")
    categories = dict(sorted(pairs, key=lambda pair: (isinstance(pair[0], str), pair[0])))
    if len(images) != len(content["images"]) or len(set(categories.values())) != len(content["categories"]):
        raise UserError(f"{file}: two images have the same id, or two categories the same id or name")
    if len(categories) > MAX_CLASSES:
        raise UserError(f"{file} has {len(categories)} categories, more than {MAX_CLASSES}")
    classes: dict[Any, set[Any]] = {image: set() for image in images}
    for image, category in _pairs(file, content, "annotations", "image_id", "category_id"):
        if image not in classes or category not in categories:
            what = f"image_id {image}" if image not in classes else f"category_id {category}"
            raise UserError(f"{file}: an annotation has {what}, which the file does not contain")
        classes[image].add(category)
    rows = [[categories[category] for category in found] for found in classes.values()]
    return list(images.values()), list(categories.values()), rows


def _pairs(file: Path, content: dict[str, Any], part: str, *keys: str) -> Iterator[tuple[Any, Any]]:
    """Yields two values of each entry of a list; names are text."""
    entries = content.get(part)
    if not isinstance(entries, list):
        raise UserError(f"{file} is not in the style of COCO: it has no list {part!r}")
    types = {key: str if key.endswith("name") else int | str for key in keys}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in types.items()):
            raise UserError(f"{file}: entry {number} of {part!r} has no {' and '.join(keys)}")
        yield entry[keys[0]], entry[keys[1]]
