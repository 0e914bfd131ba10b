"""Millions of file names in an Arrow array, and the class names that folders give."""

import os
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa

from swin_lab.errors import UserError

NAMES_PER_CHUNK = 65_536
"""Limits how many names exist as Python strings at a time while the array is built."""


class FileNames:
    """Stores file names of any encoding as bytes in one Arrow array.

    With a list of strings, every worker process would copy the list page by page, because looking at a Python object writes to
    its reference count. The buffers of an Arrow array stay shared between processes that were forked from one.

    Args:
        names: an Arrow array of encoded names, or strings.
    """

    def __init__(self, names: pa.LargeBinaryArray | Iterable[str]) -> None:
        self.array = names if isinstance(names, pa.LargeBinaryArray) else _encoded(names)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.array[int(index)].as_py())

    def select(self, indices: Sequence[int] | np.ndarray) -> "FileNames":
        """Returns the names at the given indices."""
        return FileNames(self.array.take(pa.array(np.asarray(indices, dtype=np.int64))))


def _encoded(names: Iterable[str]) -> pa.LargeBinaryArray:
    iterator = map(os.fsencode, names)
    chunks = []
    while chunk := list(islice(iterator, NAMES_PER_CHUNK)):
        chunks.append(pa.array(chunk, pa.large_binary()))
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_binary())


def classes_by_folder(names: FileNames, labels: np.ndarray, count: int) -> list[str]:
    """Returns class names where every class has a folder: the name of that folder, or else the index of the class.

    Args:
        names: paths such as `CLASS/image.jpg`.
        labels: class index of each path.
        count: number of classes.

    Returns:
        The folder of each class's first image. If two classes share a folder, all names are indices.
    """
    folders = _folders(names, labels)
    known = [folders.get(label) or str(label) for label in range(count)]
    return known if len(set(known)) == count else [str(label) for label in range(count)]


def check_same_classes(class_names: list[str], names: FileNames, labels: np.ndarray, where: str) -> None:
    """Checks that the images in the folder of a class have the index of that class.

    Args:
        class_names: classes of the training images, see `classes_by_folder`.
        names: paths of the validation images.
        labels: class index of each path.
        where: the list that contains the paths, for the message.

    Raises:
        UserError: an index differs.
    """
    index_of = {name: index for index, name in enumerate(class_names)}
    for label, folder in _folders(names, labels).items():
        if index_of.get(folder, label) != label:
            raise UserError(
                f"{where} gives the images in {folder} class {label}, and the training list class {index_of[folder]}; "
                "both lists need the same indices"
            )


def _folders(names: FileNames, labels: np.ndarray) -> dict[int, str]:
    """Returns for every class index the folder of its first image, "" if the image is in no folder."""
    present, first = np.unique(labels, return_index=True)
    paths = [names[int(index)] for index in first]
    return {int(label): path.rpartition("/")[0].rpartition("/")[2] for label, path in zip(present, paths, strict=True)}
