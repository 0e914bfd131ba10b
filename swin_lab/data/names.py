"""Millions of file names in two arrays."""

import os
from array import array
from collections.abc import Iterable

import numpy as np

from swin_lab.errors import UserError


class Names:
    """Strings one after the other in one buffer.

    A list of strings would cost a worker process its own copy, page by page, because looking at a Python object writes to its
    reference count; arrays stay shared between all processes that were forked from one.

    Args:
        names: any strings, file names of any encoding among them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        buffer, ends = bytearray(), array("q", [0])
        for name in names:
            buffer += os.fsencode(name)
            ends.append(len(buffer))
        self.buffer = np.frombuffer(bytes(buffer), dtype=np.uint8)
        self.ends = np.frombuffer(ends.tobytes(), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self.buffer[self.ends[index] : self.ends[index + 1]].tobytes())

    def part(self, indices: Iterable[int]) -> "Names":
        """Those at the given places."""
        return Names(self[int(index)] for index in indices)


def classes_by_folder(names: Names, labels: np.ndarray, count: int) -> list[str]:
    """Names of classes whose images lie in a folder each: that folder, of the first image; the class's number elsewhere.

    Args:
        names: paths, `CLASS/image.jpg`.
        labels: class index of each.
        count: number of classes.
    """
    folders = _folders(names, labels)
    known = [folders.get(label) or str(label) for label in range(count)]
    return known if len(set(known)) == count else [str(label) for label in range(count)]


def check_same_classes(class_names: list[str], names: Names, labels: np.ndarray, where: str) -> None:
    """Raises UserError if images that lie in the folder of a class have the index of another one.

    Args:
        class_names: of the training images, see `classes_by_folder`.
        names: paths of the evaluated images, in folders or not.
        labels: class index of each.
        where: the list they are from, for the message.
    """
    index_of = {name: index for index, name in enumerate(class_names)}
    for label, folder in _folders(names, labels).items():
        if index_of.get(folder, label) != label:
            raise UserError(
                f"{where} gives the images in {folder} class {label}, and the training list class {index_of[folder]}; "
                "both lists need the same indices"
            )


def _folders(names: Names, labels: np.ndarray) -> dict[int, str]:
    """Class index -> folder of its first image, "" where it is in none."""
    present, first = np.unique(labels, return_index=True)
    paths = [names[int(index)] for index in first]
    return {int(label): path.rpartition("/")[0].rpartition("/")[2] for label, path in zip(present, paths, strict=True)}
