"""Millions of file names in two arrays."""

import os
from array import array
from collections.abc import Iterable

import numpy as np


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
    """Names of classes whose pictures lie in a folder each: that folder, of the first picture; the class's number elsewhere.

    Args:
        names: paths, `CLASS/picture.jpg`.
        labels: class index of each.
        count: number of classes.
    """
    present, first = np.unique(labels, return_index=True)
    paths = [names[int(index)] for index in first]
    folders = {int(label): path.rpartition("/")[0].rpartition("/")[2] for label, path in zip(present, paths, strict=True)}
    known = [folders.get(label) or str(label) for label in range(count)]
    return known if len(set(known)) == count else [str(label) for label in range(count)]
