"""ImageNet in two zip files with a map file each, as the official code reads it: no unpacking, any image at any time."""

import zlib
from pathlib import Path
from struct import error as StructError
from struct import unpack
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from PIL import Image

from swin_lab.data.images import NO_IMAGES, ImageSet, open_rgb
from swin_lab.data.names import Names, check_same_classes, classes_by_folder
from swin_lab.data.sources.folder import existing_folder
from swin_lab.data.sources.listed import read_list
from swin_lab.errors import UserError

LOCAL_HEADER = 30
"""Bytes before a member's name (.ZIP file format specification, 4.3.7)."""


class Zipped:
    """`root/train.zip` with `root/train_map.txt`, and the same for `val`; a line of a map is `path-in-the-zip TAB class index`.

    Args:
        root: the folder.
        val_only: whether there is only something to evaluate.

    Raises:
        UserError: a file is missing or damaged, or a map names an image that its zip has not.
    """

    def __init__(self, root: str, val_only: bool = False) -> None:
        top = existing_folder(root)
        val = _open(top, "val")
        train = None if val_only else _open(top, "train")
        named = train or val
        highest = max(int(named.labels.max()), int(val.labels.max()))
        self.class_names = classes_by_folder(named.members, named.labels, highest + 1)
        check_same_classes(self.class_names, val.members, val.labels, f"{top / 'val_map.txt'}")
        self.train: ImageSet = train or NO_IMAGES
        self.val: ImageSet = val


class ZipImages:
    """Members of a zip file; where each lies in it is known from its directory, read once.

    Args:
        file: the zip.
        members: their names.
        labels: class indices.
        where: (N, 3) of int64: where the member's header starts, its compressed size, how it is compressed.
    """

    def __init__(self, file: Path, members: Names, labels: np.ndarray, where: np.ndarray) -> None:
        self.file = file
        self.members = members
        self.labels = labels
        self.where = where

    def image(self, index: int) -> Image.Image:
        start, size, method = self.where[index].tolist()
        with self.file.open("rb") as file:  # opened for each image: processes share no position in it
            file.seek(start)
            header = file.read(LOCAL_HEADER)
            if len(header) < LOCAL_HEADER or header[:4] != b"PK\x03\x04":
                raise OSError("the zip holds no member where its directory says")
            name_length, extra_length = unpack("<HH", header[26:30])
            file.seek(name_length + extra_length, 1)
            stored = file.read(size)
        try:
            return open_rgb(stored if method == ZIP_STORED else zlib.decompress(stored, wbits=-zlib.MAX_WBITS))
        except zlib.error as error:
            raise OSError(str(error)) from error

    def name(self, index: int) -> str:
        return f"{self.file}@/{self.members[index]}"


def _open(top: Path, split: str) -> ZipImages:
    file = top / f"{split}.zip"
    if not file.is_file():
        raise UserError(f"{top} has no {file.name}; it needs train.zip, train_map.txt, val.zip and val_map.txt")
    members, labels = read_list(top / f"{split}_map.txt")
    try:
        with ZipFile(file) as archive:
            found = {info.filename: info for info in archive.infolist()}
    except (BadZipFile, OSError, NotImplementedError, ValueError, StructError) as error:  # what a damaged directory raises
        raise UserError(f"{file} cannot be read as a zip file: {error}") from error
    where = np.empty((len(members), 3), dtype=np.int64)
    for i in range(len(members)):
        info = found.get(members[i])
        if info is None or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            problem = "is not in" if info is None else "is compressed in a way that cannot be read in"
            raise UserError(f"{members[i]}, line {i + 1} of {split}_map.txt, {problem} {file}")
        where[i] = info.header_offset, info.compress_size, info.compress_type
    return ZipImages(file, members, labels, where)
