"""Images that a user names by paths: files, folders, globs, zip files, tar shards, parquet files and data sets of the hub."""

import glob
import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from swin_lab.data.decoding import Encoded
from swin_lab.data.images import ImageSet
from swin_lab.data.names import FileNames
from swin_lab.data.sources.folder import VALIDATION_NAMES, FileImages, has_image_suffix, images_under, warn_of_left_out
from swin_lab.data.sources.parquet import HUB, downloaded
from swin_lab.errors import UserError, printable
from swin_lab.inference.archives import ARCHIVES, read_archive
from swin_lab.inference.labels import UNKNOWN, LabelNames

SPLITS = ("train", *VALIDATION_NAMES)
"""Names of folders that are those of a part of a data set, not of a class."""


class Inputs:
    """Contains the images of all given paths, in the order of the paths, without their pixels.

    Args:
        parts: images of one origin each, whose labels are indices of `label_names`, or -1 if they are unknown.
        label_names: the names of all labels.
    """

    def __init__(self, parts: Sequence[ImageSet], label_names: Sequence[str]) -> None:
        self.parts = parts
        self.label_names = label_names
        self.labels: np.ndarray = np.concatenate([np.asarray(part.labels, dtype=np.int32) for part in parts])
        self._ends = np.cumsum([len(part.labels) for part in parts])

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> Encoded:
        """Returns the bytes of an image file; raises an error of `swin_lab.data.decoding.UNREADABLE` if there are none."""
        part, position = self._located(index)
        return part.encoded(position)

    def name(self, index: int) -> str:
        """Returns the path of an image; one in an archive has the path of the archive before its own."""
        part, position = self._located(index)
        return part.name(position)

    def label(self, index: int) -> str | None:
        """Returns the name of an image's class, or None if it is unknown."""
        label = int(self.labels[index])
        return None if label == UNKNOWN else self.label_names[label]

    def fingerprint(self) -> str:
        """Returns a hash of names and labels, and of where archives contain the images; contents of files are not read."""
        digest = hashlib.sha256(repr([len(part.labels) for part in self.parts]).encode())
        for index in range(len(self)):
            digest.update(f"{self.name(index)}\0{self.label(index)}\n".encode())
        for part in self.parts:
            digest.update(np.ascontiguousarray(getattr(part, "extents", ())).tobytes())
        return digest.hexdigest()

    def _located(self, index: int) -> tuple[ImageSet, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[number], index - (int(self._ends[number - 1]) if number else 0)


def open_inputs(paths: Sequence[str]) -> Inputs:
    """Lists the images of files, folders, globs, archives, and data sets of the hub, hf://datasets/OWNER/NAME.

    A folder stands for the image files in it and below it, or else for the archives there. An image below it has the name of
    the folder of its class as label, as for `data=folder`.

    Args:
        paths: what a user has given.

    Raises:
        UserError: a path does not exist or contains no images, or an archive is damaged.
    """
    labels = LabelNames()
    parts: list[ImageSet] = []
    single: list[str] = []

    def close_files() -> None:
        if single:
            parts.append(FileImages(Path(), FileNames(single), np.full(len(single), UNKNOWN)))
            single.clear()

    for path in (expanded for given in paths for expanded in _expanded(given)):
        if Path(path).suffix.lower() in ARCHIVES and Path(path).is_file():
            close_files()
            parts.append(read_archive(Path(path), labels, label_of_path))
        elif Path(path).is_dir():
            close_files()
            parts += _folder(Path(path), labels)
        else:
            single.append(path)
    close_files()
    inputs = Inputs(parts, labels.names)
    if not len(inputs):
        raise UserError(f"{printable(', '.join(paths))[:200]} contains no images")
    return inputs


def label_of_path(path: str) -> str | None:
    """Returns the first folder of a path that is not named like a part of a data set, or None if there is none."""
    return next((folder for folder in path.split("/")[:-1] if folder and folder not in SPLITS), None)


def _expanded(given: str) -> Iterator[str]:
    """Yields the paths that a path stands for: those that match a glob, in the order of their names, or itself."""
    if given.startswith(HUB):
        try:
            yield str(downloaded(given))
        except UserError as error:
            raise UserError(str(error).removeprefix("data.root=")) from error
        return
    if "\0" in given:
        raise UserError(f"{printable(given)} is not a path")
    if _exists(given):
        yield given
        return
    if not glob.has_magic(given):
        raise UserError(f"{printable(given)[:300]} does not exist; give image files, folders, .zip, .tar or .parquet files")
    found = sorted(glob.glob(given, recursive=True))
    recursive = "**" in re.split(r"[/\\]", given)  # It matches folders as well as all that they contain.
    chosen = [path for path in found if _is_wanted(Path(path), folders=not recursive)]
    if not chosen:
        raise UserError(f"no image, folder or archive matches {printable(given)[:300]}")
    yield from chosen


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a name that is too long, or a folder that may not be entered
        return False


def _is_wanted(path: Path, folders: bool) -> bool:
    return (folders and path.is_dir()) or (path.is_file() and (has_image_suffix(path.name) or path.suffix.lower() in ARCHIVES))


def _folder(folder: Path, labels: LabelNames) -> list[ImageSet]:
    """Returns the images of a folder, or else those of its archives."""
    codes = array("i")
    left_out: Counter[str] = Counter()

    def paths() -> Iterator[str]:
        for path in images_under(folder, "", left_out):
            codes.append(labels.code(label_of_path(path)))
            yield path

    try:
        files = FileNames(paths())
        archives = [] if len(files) else sorted(file for ending in ARCHIVES for file in folder.rglob(f"*{ending}"))
    except (OSError, RecursionError) as error:
        raise UserError(f"{printable(str(folder))} cannot be read: {printable(str(error))[:300]}") from error
    if archives:
        return [read_archive(file, labels, label_of_path) for file in archives]
    if not len(files):
        endings = ", ".join(ARCHIVES)
        raise UserError(f"the folder {printable(str(folder))} contains no image files (.jpg, .png, ...) and no {endings} files")
    warn_of_left_out(folder, left_out)
    return [FileImages(folder, files, np.frombuffer(codes, dtype=np.int32))]
