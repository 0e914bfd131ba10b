"""Two zip files with a map file each, as the official code reads ImageNet: images are read by index, without unpacking."""

import zlib
from collections import Counter
from pathlib import Path
from struct import error as StructError
from struct import unpack
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from swin_lab.data.classes import count_classes, printable
from swin_lab.data.images import MAX_IMAGE_BYTES, NO_IMAGES, ImageSet
from swin_lab.data.names import FileNames, check_same_classes, classes_by_folder
from swin_lab.data.sources.folder import existing_folder
from swin_lab.data.sources.listed import read_list
from swin_lab.errors import UserError
from swin_lab.validation import Text

ENCRYPTED = 1
"""Flag of an encrypted member (.ZIP file format specification, 4.4.4)."""
UNREADABLE = -1
"""Takes the place of the compression method of a member that is encrypted or compressed by an unsupported method."""
LOCAL_HEADER = 30
"""Bytes of a member's header before its name (.ZIP file format specification, 4.3.7)."""


class Zipped:
    """Reads `root/train.zip` and `root/train_map.txt`, and the same for `val`; a line of a map is `member TAB class index`.

    Args:
        root: the folder of the files.
        val_only: whether only `val` is read, for an evaluation.

    Raises:
        UserError: a file is missing or damaged, or a map names an image that its zip does not contain.
    """

    def __init__(self, root: Text, val_only: bool = False) -> None:
        top = existing_folder(root)
        val = _open(top, "val")
        train = None if val_only else _open(top, "train")
        named = train or val
        self.class_names = classes_by_folder(named.members, named.labels, count_classes(str(top), named.labels, val.labels))
        check_same_classes(self.class_names, val.members, val.labels, f"{top / 'val_map.txt'}")
        self.train: ImageSet = train or NO_IMAGES
        self.val: ImageSet = val


class ZipImages:
    """Members of a zip file, located by its directory, which is read once.

    Args:
        file: the zip file.
        members: (N,) names of the members.
        labels: (N,) class indices.
        extents: (N, 3) of int64: first byte of the member's header, its compressed size, and its compression method; UNREADABLE
            for a member that cannot be read.
    """

    def __init__(self, file: Path, members: FileNames, labels: np.ndarray, extents: np.ndarray) -> None:
        self.file = file
        self.members = members
        self.labels = labels
        self.extents = extents

    def encoded(self, index: int) -> bytes:
        """Reads a member and decompresses it."""
        start, size, method = self.extents[index].tolist()
        if method == UNREADABLE:
            raise OSError("the member is encrypted or has an unsupported compression")
        with self.file.open("rb") as file:  # Processes would share the position of an open file.
            file.seek(start)
            header = file.read(LOCAL_HEADER)
            if len(header) < LOCAL_HEADER or header[:4] != b"PK\x03\x04":
                raise OSError("the zip file contains no member where its directory says")
            name_length, extra_length = unpack("<HH", header[26:30])
            file.seek(name_length + extra_length, 1)
            stored = file.read(size)
        if method == ZIP_STORED:
            return stored
        stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        try:
            decompressed = stream.decompress(stored, MAX_IMAGE_BYTES)
        except zlib.error as error:
            raise OSError(str(error)) from error
        if not stream.eof:
            raise OSError("the member is incomplete" if not stream.unconsumed_tail else "the member is too large for an image")
        return decompressed

    def name(self, index: int) -> str:
        """Returns the zip file and the name of the member."""
        return printable(f"{self.file}@/{self.members[index]}")


def _open(top: Path, split: str) -> ZipImages:
    """Reads the map and the zip directory of a split."""
    file = top / f"{split}.zip"
    if not file.is_file():
        raise UserError(f"{top} has no {file.name}; it needs train.zip, train_map.txt, val.zip and val_map.txt")
    members, labels = read_list(top / f"{split}_map.txt")
    infos = read_directory(file)
    found = {info.filename: info for info in infos}
    if len(found) < len(infos):
        twice = next(name for name, count in Counter(info.filename for info in infos).items() if count > 1)
        raise UserError(f"{file} contains {printable(twice)} twice; write the zip file again without the second one")
    extents = np.empty((len(members), 3), dtype=np.int64)
    for i in range(len(members)):
        info = found.get(members[i])
        extents[i] = extent_of(info) if info is not None else (0, 0, UNREADABLE)
        if extents[i, 2] == UNREADABLE:
            problem = "is not in" if info is None else "is encrypted or has an unsupported compression in"
            raise UserError(f"{printable(members[i])}, line {i + 1} of {split}_map.txt, {problem} {file}")
    return ZipImages(file, members, labels, extents)


def read_directory(file: Path) -> list[ZipInfo]:
    """Returns the members of a zip file; raises UserError if its directory is damaged."""
    try:
        with ZipFile(file) as archive:
            return archive.infolist()
    except (BadZipFile, OSError, NotImplementedError, ValueError, StructError) as error:
        raise UserError(f"{file} cannot be read as a zip file: {error}") from error


def extent_of(info: ZipInfo) -> tuple[int, int, int]:
    """Returns where a member of a zip file is, see `ZipImages`."""
    readable = info.compress_type in (ZIP_STORED, ZIP_DEFLATED) and not info.flag_bits & ENCRYPTED
    return info.header_offset, info.compress_size, info.compress_type if readable else UNREADABLE
