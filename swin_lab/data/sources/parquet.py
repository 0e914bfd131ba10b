"""Parquet files of images as Hugging Face exports them: a struct column {bytes, path}, and class indices or lists of them."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from swin_lab.data.classes import count_classes
from swin_lab.data.images import NO_IMAGES, ImageSet
from swin_lab.data.sources.folder import existing_folder
from swin_lab.data.sources.row_groups import RowGroupImages, image_bytes, is_list, labels_of, read_column
from swin_lab.data.splitting import SplitSeed, ValFraction, split_by_class
from swin_lab.errors import UserError
from swin_lab.validation import Text

log = logging.getLogger("swin_lab.data")

VALIDATION_PATTERNS = ("val*.parquet", "test*.parquet")
HUB = "hf://datasets/"
"""Prefix of OWNER/NAME for a data set of the Hugging Face hub."""
MAX_IN_MEMORY = 2 * 2**30
"""Files of at most this many bytes are read into memory, unless `data.in_memory` is given."""


class Parquet:
    """Reads `root/train*.parquet` and `root/val*.parquet` or `root/test*.parquet`, or `root/*.parquet` that are split.

    Up to 2 GiB, the files are read into memory with the images encoded; larger files are read row group by row group.

    Args:
        root: the folder of the files, or the folder that contains their folder `data`; hf://datasets/OWNER/NAME for a data set
            of the Hugging Face hub, which is downloaded once into its cache.
        image_column: column of images; if None, found by the files' metadata or by its type.
        label_column: column of class indices, or of lists of class indices or names, of which an image has any number; if
            None, found by the files' metadata or by its type.
        val_fraction: fraction of every class in the validation set, if there are no validation files.
        split_seed: seed of the split.
        in_memory: whether the files are read into memory; if None, their size decides.
        val_only: whether only validation images are read, for an evaluation: the validation files, or all files if there are no
            validation files.

    Raises:
        UserError: files or columns are missing, a file is damaged, or the hub cannot be reached.
    """

    def __init__(
        self,
        root: Text,
        image_column: Text | None = None,
        label_column: Text | None = None,
        val_fraction: ValFraction = 0.1,
        split_seed: SplitSeed = 0,
        in_memory: bool | None = None,
        val_only: bool = False,
    ) -> None:
        top, train_files, val_files = _find_files(root)
        files = (val_files or train_files) if val_only else train_files
        if not files:
            raise UserError(f"{top} has no training files (train-*.parquet); data.val_only=true evaluates without them")
        columns = _columns(files[0], image_column, label_column)
        total = sum(file.stat().st_size for file in {*files, *val_files})
        read = _read if in_memory or (in_memory is None and total <= MAX_IN_MEMORY) else _read_lazily
        several = is_list(_schema(files[0]).field(columns[1]).type)
        named = _class_names([*files, *val_files], columns[1])
        if several and not named:
            named = _listed_names([*files, *(file for file in val_files if file not in files)], columns)
        first = read(files, columns, named or ())
        self.class_names = named or [
            str(label) for label in range(count_classes(f"{top}: column {columns[1]!r}", first.labels))
        ]
        self.train: ImageSet = NO_IMAGES if val_only else first
        self.val: ImageSet = first
        if val_files and not val_only:
            self.val = read(val_files, columns, self.class_names)
        elif not val_only:
            train, val = split_by_class(first.labels, val_fraction, split_seed)
            self.train, self.val = first.select(train), first.select(val)
        if several:
            return
        labels = np.concatenate([np.asarray(self.train.labels), np.asarray(self.val.labels)])
        if labels.max() >= len(self.class_names) or labels.min() < 0:
            raise UserError(f"{top}: column {columns[1]!r} has labels outside the {len(self.class_names)} classes")


class ParquetImages:
    """Rows of an Arrow table in memory, each an encoded image.

    Args:
        images: the image column of all files, concatenated.
        labels: (N,) class indices, or (N, classes) of 0 and 1.
        rows: (N,) rows of `images` that belong to this set.
        files: the first row of each file and the file, for messages.
    """

    def __init__(self, images: pa.ChunkedArray, labels: np.ndarray, rows: np.ndarray, files: list[tuple[int, Path]]) -> None:
        self.images = images
        self.labels = labels
        self.rows = rows
        self.files = files

    def select(self, indices: np.ndarray) -> "ParquetImages":
        """Returns the images at the given indices."""
        return ParquetImages(self.images, self.labels[indices], self.rows[indices], self.files)

    def encoded(self, index: int) -> bytes:
        """Returns the bytes of an image."""
        return image_bytes(self.images[int(self.rows[index])].as_py())

    def name(self, index: int) -> str:
        """Returns the file of an image and its row in the file."""
        row = int(self.rows[index])
        first, file = next((first, file) for first, file in reversed(self.files) if first <= row)
        return f"{file} row {row - first}"


def _find_files(root: str) -> tuple[Path, list[Path], list[Path]]:
    """Returns the folder of the files, the training files and the validation files."""
    top = downloaded(root) if root.startswith(HUB) else existing_folder(root)
    if not any(top.glob("*.parquet")) and any(top.glob("data/*.parquet")):
        top = top / "data"
    val_files = next((found for pattern in VALIDATION_PATTERNS if (found := sorted(top.glob(pattern)))), [])
    train_files = sorted(top.glob("train*.parquet"))
    if not train_files and not val_files:
        train_files = sorted(top.glob("*.parquet"))
        if not train_files:
            raise UserError(f"{top} contains no *.parquet files; give the folder with train-*.parquet as data.root")
    return top, train_files, val_files


def downloaded(root: str) -> Path:
    """Downloads the parquet files of a data set, hf://datasets/OWNER/NAME, and returns their folder in the hub's cache."""
    from huggingface_hub import snapshot_download

    name = root.removeprefix(HUB)
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet"))
    except Exception as error:  # errors of the hub's client and of its HTTP library
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"data.root={root} cannot be downloaded: {reason}\n"
            "Gated data sets (ImageNet) need an accepted licence and a token: hf auth login; or give a folder of parquet files"
        ) from error


def _read_lazily(files: list[Path], columns: tuple[str, str], class_names: Sequence[str]) -> RowGroupImages:
    """Opens files that remain on the disk."""
    _check_columns(files, columns)
    images = RowGroupImages(files, columns, class_names=class_names)
    if images.images_per_group > 1:
        log.info(
            "note       %s stores %.0f images per row group, which are read together; for speed: swin-lab data pack",
            files[0].parent,
            images.images_per_group,
        )
    return images


def _check_columns(files: list[Path], columns: tuple[str, str]) -> None:
    first = _schema(files[0])
    for file in files:
        schema = _schema(file)
        absent = [column for column in columns if column not in schema.names]
        if absent:
            raise UserError(f"{file} has no column {absent[0]!r}, unlike the first file")
        _check_types(file, schema, columns)
        for column in columns:
            if schema.field(column).type != first.field(column).type:
                kinds = f"{schema.field(column).type}, in {files[0].name} {first.field(column).type}"
                raise UserError(f"{file}: column {column!r} is of type {kinds}; all files need the same type")


def _columns(file: Path, image_column: str | None, label_column: str | None) -> tuple[str, str]:
    """Returns the names of the image column and the label column."""
    schema = _schema(file)
    images, labels = _columns_of_images(schema), _columns_of_classes(schema)
    labels += [field.name for field in schema if pa.types.is_integer(field.type)]
    labels += [field.name for field in schema if is_list(field.type)]
    chosen = []
    for option, given, candidates in (("image_column", image_column, images), ("label_column", label_column, labels)):
        name = given if given is not None else next(iter(candidates), None)
        if name is None or name not in schema.names:
            shown = "null" if given is None else given
            raise UserError(
                f"data.{option}={shown}: {file} has the columns {', '.join(schema.names)}; name one of them.\n"
                "Images are bytes or a struct {bytes, path}, and class indices are integers, or lists if an image has several"
            )
        chosen.append(name)
    return chosen[0], chosen[1]


def unlabelled_images(file: Path) -> tuple[RowGroupImages, pa.ChunkedArray | None]:
    """Opens a file whose images need no labels.

    Returns:
        Its rows, and their labels: names or class indices, from a column of classes or one that is called `label`. If None, it
        has no such column.

    Raises:
        UserError: it cannot be read, or has no column of images.
    """
    schema = _schema(file)
    images = _columns_of_images(schema)
    if not images or images[0] not in schema.names:
        raise UserError(f"{file} has no column of images (bytes, or a struct {{bytes, path}}), only {', '.join(schema.names)}")
    _check_type_of_images(file, schema, images[0])
    labels = [name for name in (*_columns_of_classes(schema), "label") if name in schema.names]
    rows = RowGroupImages([file], (images[0], None))
    if not labels:
        return rows, None
    column = pq.read_table(file, columns=labels[:1])[labels[0]]
    if is_list(column.type):
        log.warning("%s: column %r has several labels per image; its images are read without labels", file, labels[0])
        return rows, None
    names = _class_names([file], labels[0])
    if names and pa.types.is_integer(column.type):  # -1 is written for the images of a test set, whose classes are secret.
        known = pc.and_(pc.greater_equal(column, 0), pc.less(column, len(names)))
        return rows, pc.take(pa.array(names), pc.if_else(known, column, None))
    return rows, column.cast(pa.string()) if pa.types.is_integer(column.type) or pa.types.is_string(column.type) else None


def _columns_of_images(schema: pa.Schema) -> list[str]:
    """Returns the columns that may contain images, the likeliest first."""
    described = [name for name, feature in _features(schema).items() if feature.get("_type") == "Image"]
    return described + [field.name for field in schema if _contains_images(field.type)]


def _columns_of_classes(schema: pa.Schema) -> list[str]:
    """Returns the columns that the metadata describes as classes."""
    return [name for name, feature in _features(schema).items() if _entries(feature).get("_type") == "ClassLabel"]


def _check_types(file: Path, schema: pa.Schema, columns: tuple[str, str]) -> None:
    """Raises UserError unless the columns are one of images and one of integers."""
    for column in columns:
        if schema.names.count(column) > 1:
            raise UserError(f"{file} has several columns named {column!r}; every column needs its own name")
    _check_type_of_images(file, schema, columns[0])
    label = schema.field(columns[1]).type
    if not pa.types.is_integer(label) and not is_list(label):
        raise UserError(
            f"{file}: column {columns[1]!r} is of type {label}; a class index is an integer, and several are a list of "
            "integers or names"
        )


def _check_type_of_images(file: Path, schema: pa.Schema, column: str) -> None:
    kind = schema.field(column).type
    if not _contains_images(kind):
        raise UserError(f"{file}: column {column!r} is of type {kind}; images are bytes, or a struct {{bytes, path}}")


def _contains_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _read(files: list[Path], columns: tuple[str, str], class_names: Sequence[str]) -> ParquetImages:
    """Reads files into memory."""
    _check_columns(files, columns)
    tables, starts, rows = [], [], 0
    for file in files:
        try:
            tables.append(pq.read_table(file, columns=list(columns)))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file} cannot be read as parquet: {error}") from error
        starts.append((rows, file))
        rows += tables[-1].num_rows
    table = pa.concat_tables([table.replace_schema_metadata() for table in tables])
    if rows == 0:
        raise UserError(f"{files[0]} has no rows")
    labels = labels_of(table[columns[1]], files[0].parent, columns[1], class_names)
    return ParquetImages(table[columns[0]], labels, np.arange(rows), starts)


def _class_names(files: list[Path], label_column: str) -> list[str] | None:
    """Returns the class names that the files' metadata contains; raises UserError if two files have different ones."""
    described = [(file, _entries(_features(_schema(file)).get(label_column, {})).get("names")) for file in files]
    listed = [(file, names) for file, names in described if names]
    for file, names in listed:
        if not isinstance(names, list):
            raise UserError(f"{file}: the class names in its metadata are a {type(names).__name__}; they must be a list")
        if names != listed[0][1]:
            raise UserError(f"{file} has other class names than {listed[0][0].name}; all files need the same classes and order")
    return listed[0][1] if listed else None


def _listed_names(files: list[Path], columns: tuple[str, str]) -> list[str]:
    """Returns the sorted names in a list column, or numbers up to the highest class index in it as names."""
    _check_columns(files, columns)
    entries = pc.unique(pc.list_flatten(read_column(files, columns[1]))).drop_null()
    where = f"{files[0].parent}: column {columns[1]!r}"
    if not len(entries):
        raise UserError(f"{where} has empty lists only; at least one image needs a label")
    if pa.types.is_string(entries.type):
        return sorted(entries.to_pylist())
    return [str(c) for c in range(count_classes(where, entries.to_numpy()))]


def _entries(feature: dict) -> dict:
    """Returns the description of the entries of a list column, or of the values of another one."""
    inner = feature.get("feature")
    return inner if isinstance(inner, dict) else feature


def _schema(file: Path) -> pa.Schema:
    if not file.is_file():
        raise UserError(f"{file} cannot be read as parquet: it is not a file")
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet: {error}") from error


def _features(schema: pa.Schema) -> dict[str, dict]:
    """Returns the column descriptions that Hugging Face's exporter writes; empty if there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):  # There is none, or it was written by something else.
        return {}
    known = features.items() if isinstance(features, dict) else ()
    # Older versions describe a list column as a list of one description.
    found = {name: {"feature": feature[0]} if isinstance(feature, list) and feature else feature for name, feature in known}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
