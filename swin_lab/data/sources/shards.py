"""WebDataset shards: tar files of images and class indices, accessed by index and therefore shuffled like any other source."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from swin_lab.data.classes import class_index, count_classes, printable
from swin_lab.data.images import NO_IMAGES, ImageSet
from swin_lab.data.names import FileNames
from swin_lab.data.sources.folder import existing_folder
from swin_lab.errors import UserError
from swin_lab.validation import Text

MAX_CLASS_BYTES = 100
"""Size of a file with a class index at most."""
PATTERNS = {"train": ("*train*.tar",), "val": ("*val*.tar", "*test*.tar")}


class Shards:
    """Reads `root/*train*.tar` and `root/*val*.tar`; a sample is `KEY.jpg` and `KEY.cls`, which contains the class index.

    Class names are the lines of `root/classes.txt`, which `swin-lab data pack` writes, or else the indices.

    Args:
        root: the folder of the shards.
        val_only: whether only validation shards are read, for an evaluation.

    Raises:
        UserError: shards are missing or damaged, or an image has no class index.
    """

    def __init__(self, root: Text, val_only: bool = False) -> None:
        top = existing_folder(root)
        val = _index(top, "val")
        train = None if val_only else _index(top, "train")
        count = count_classes(str(top), *(images.labels for images in (train, val) if images is not None))
        listed = top / "classes.txt"
        self.class_names = read_class_names(listed) if listed.is_file() else [str(i) for i in range(count)]
        if count > len(self.class_names):
            raise UserError(f"{listed} names {len(self.class_names)} classes, and the shards contain class index {count - 1}")
        self.train: ImageSet = train or NO_IMAGES
        self.val: ImageSet = val


class ShardImages:
    """Images inside tar files.

    Args:
        files: the tar files.
        keys: (N,) keys of the samples.
        labels: (N,) class indices.
        extents: (N, 3) of int64: index of the file, first byte of the image in it, and size of the image in bytes.
    """

    def __init__(self, files: list[Path], keys: FileNames, labels: np.ndarray, extents: np.ndarray) -> None:
        self.files = files
        self.keys = keys
        self.labels = labels
        self.extents = extents

    def encoded(self, index: int) -> bytes:
        """Reads the bytes of an image from its shard."""
        shard, start, size = self.extents[index].tolist()
        with self.files[shard].open("rb") as file:
            file.seek(start)
            return file.read(size)

    def name(self, index: int) -> str:
        """Returns the shard and the key of an image."""
        return printable(f"{self.files[int(self.extents[index, 0])]}@/{self.keys[index]}")


def read_class_names(file: Path) -> list[str]:
    """Returns the lines of a text file, which may end in a line break."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as a text of class names in UTF-8: {error}") from error
    return text.removesuffix("\n").split("\n")


def _index(top: Path, split: str) -> ShardImages:
    """Reads the tar headers of all shards of a split."""
    files = next((found for pattern in PATTERNS[split] if (found := sorted(top.glob(pattern)))), [])
    if not files:
        raise UserError(
            f"{top} has no {' or '.join(PATTERNS[split])}; shards are written by: swin-lab data pack data=... --out {top}"
        )
    keys: list[str] = []
    labels: list[int] = []
    extents: list[tuple[int, int, int]] = []
    for shard, file in enumerate(files):
        for key, (start, size, label) in _samples(file).items():
            keys.append(key)
            labels.append(label)
            extents.append((shard, start, size))
    if not keys:
        raise UserError(
            f"{files[0]} and the other shards of {split} contain no images with a class index (KEY.jpg and KEY.cls)"
        )
    return ShardImages(files, FileNames(keys), np.array(labels, dtype=np.int64), np.array(extents, dtype=np.int64))


def _samples(file: Path) -> dict[str, tuple[int, int, int]]:
    """Returns for every key the first byte and the size of the image, and its class index."""
    images: dict[str, tuple[int, int]] = {}
    classes: dict[str, int] = {}
    with open_shard(file) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if member.isdir() or path.name.startswith("."):
                continue
            stem, _, kind = path.name.partition(".")
            key = str(path.with_name(stem))
            is_image = f".{kind.lower()}" in IMG_EXTENSIONS
            if not is_image and kind != "cls":
                continue
            if key in (images if is_image else classes):
                raise ValueError(f"it contains {'two images' if is_image else 'two classes'} with the key {printable(key)}")
            if not member.isreg() or member.issparse():
                raise ValueError(f"{printable(member.name)} is a link, sparse, or no file; pack the files themselves")
            if is_image:
                images[key] = (member.offset_data, member.size)
            else:
                classes[key] = class_of(archive, member)
    unlabelled = next((key for key in images if classes.get(key, -1) < 0), None)
    if unlabelled is not None:
        key = printable(unlabelled)
        raise UserError(f"{file}: image {key} has no class index; add {key}.cls with a non-negative integer")
    return {key: (*extent, classes[key]) for key, extent in images.items()}


@contextmanager
def open_shard(file: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar file whose members are read to the last one inside the context.

    Raises:
        UserError: it is no tar file, damaged or truncated, or ValueError was raised inside the context.
    """
    if not file.is_file():
        raise UserError(f"{file} is not a file; remove it")
    try:
        with file.open("rb") as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            yield archive
            opened.seek(archive.offset)  # tarfile stops at a damaged header like at the end, a block of zeros.
            if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"it is damaged or truncated at byte {archive.offset:,}; copy or pack it again")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a shard: {printable(str(error))[:300]}") from error


def class_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    """Returns the class index in a member KEY.cls; raises ValueError if there is none."""
    content = archive.extractfile(member)
    if content is None or member.size > MAX_CLASS_BYTES:
        raise ValueError(f"{printable(member.name)} is not a file with one class index")
    return class_index(content.read().decode(errors="replace").strip())
