"""Image parquet files as Hugging Face exports them: a struct column {bytes, path} and a column of class indices."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from swin_lab.data.pictures import open_rgb, split_by_class
from swin_lab.errors import UserError

VALIDATION_PATTERNS = ("val*.parquet", "test*.parquet")


class Parquet:
    """`root/train*.parquet` with `root/val*.parquet` or `root/test*.parquet` beside it, or only files that are split here.

    The files are held in memory as they are stored, compressed pictures included.

    Args:
        root: the folder.
        image_column: column of pictures; found in the files' metadata or by its type if None.
        label_column: column of class indices; found likewise if None.
        val_fraction: part of every class that is held out where there are no validation files.
        split_seed: which ones.

    Raises:
        UserError: files or columns are missing, or a file is damaged.
    """

    def __init__(
        self,
        root: str,
        image_column: str | None = None,
        label_column: str | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        top = Path(root).expanduser().absolute()
        if not top.is_dir():
            raise UserError(f"data.root={root}: there is no folder {top}")
        train_files = sorted(top.glob("train*.parquet")) or sorted(top.glob("*.parquet"))
        if not train_files:
            raise UserError(f"{top} holds no *.parquet files; give the folder with train-*.parquet as data.root")
        val_files = next((found for pattern in VALIDATION_PATTERNS if (found := sorted(top.glob(pattern)))), [])
        train_files = [file for file in train_files if file not in val_files]
        columns = _columns(train_files[0], image_column, label_column)
        train = _read(train_files, columns)
        self.class_names = _class_names(train_files[0], columns[1], train.labels)
        if val_files:
            self.train, self.val = train, _read(val_files, columns)
        else:
            part, held_out = split_by_class(train.labels, val_fraction, split_seed)
            self.train, self.val = train.part(part), train.part(held_out)
        highest = max(int(self.train.labels.max()), int(self.val.labels.max()))
        if highest >= len(self.class_names) or min(int(self.train.labels.min()), int(self.val.labels.min())) < 0:
            raise UserError(f"{top}: column {columns[1]!r} has labels outside the {len(self.class_names)} classes")


class EncodedPictures:
    """Rows of an Arrow table, each an encoded picture.

    Args:
        images: the pictures of all files, one after the other.
        labels: their classes.
        rows: which of `images` belong to this set.
        files: where they are from, as (first row, file), for messages.
    """

    def __init__(self, images: pa.ChunkedArray, labels: np.ndarray, rows: np.ndarray, files: list[tuple[int, Path]]) -> None:
        self.images = images
        self.labels = labels
        self.rows = rows
        self.files = files

    def part(self, indices: np.ndarray) -> "EncodedPictures":
        return EncodedPictures(self.images, self.labels[indices], self.rows[indices], self.files)

    def picture(self, index: int) -> Image.Image:
        value = self.images[int(self.rows[index])].as_py()
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(encoded, bytes):
            raise OSError("the row holds no picture bytes")
        return open_rgb(encoded)

    def name(self, index: int) -> str:
        row = int(self.rows[index])
        first, file = next((first, file) for first, file in reversed(self.files) if first <= row)
        return f"{file} row {row - first}"


def _columns(file: Path, image_column: str | None, label_column: str | None) -> tuple[str, str]:
    """Names of the picture and the label column."""
    schema = _schema(file)
    features = _features(schema)
    images = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    labels = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    images += [field.name for field in schema if pa.types.is_struct(field.type) or pa.types.is_binary(field.type)]
    labels += [field.name for field in schema if pa.types.is_integer(field.type)]
    chosen = []
    for option, given, candidates in (("image_column", image_column, images), ("label_column", label_column, labels)):
        name = given if given is not None else next(iter(candidates), None)
        if name is None or name not in schema.names:
            raise UserError(f"data.{option}={given}: {file} has the columns {', '.join(schema.names)}; name one of them")
        chosen.append(name)
    return chosen[0], chosen[1]


def _read(files: list[Path], columns: tuple[str, str]) -> EncodedPictures:
    tables, starts, rows = [], [], 0
    for file in files:
        absent = [column for column in columns if column not in _schema(file).names]
        if absent:
            raise UserError(f"{file} has no column {absent[0]!r}, which the first training file has")
        try:
            tables.append(pq.read_table(file, columns=list(columns)))
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{file} cannot be read as parquet: {error}") from error
        starts.append((rows, file))
        rows += tables[-1].num_rows
    table = pa.concat_tables(tables)
    if rows == 0:
        raise UserError(f"{files[0]} has no rows")
    if table[columns[1]].null_count:
        raise UserError(f"{files[0].parent}: {table[columns[1]].null_count} rows have no label in column {columns[1]!r}")
    return EncodedPictures(table[columns[0]], table[columns[1]].to_numpy().astype(np.int64), np.arange(rows), starts)


def _class_names(file: Path, label_column: str, labels: np.ndarray) -> list[str]:
    names = _features(_schema(file)).get(label_column, {}).get("names")
    return list(names) if names else [str(label) for label in range(int(labels.max()) + 1)]


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet: {error}") from error


def _features(schema: pa.Schema) -> dict[str, dict]:
    """What the exporter wrote about the columns; empty if it wrote nothing."""
    written = (schema.metadata or {}).get(b"huggingface")
    return json.loads(written)["info"]["features"] if written else {}
