"""WebDataset shards: tar files of images and classes. Read by index, so that shuffles and splits are those of any source."""

import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from swin_lab.data.images import NO_IMAGES, ImageSet, open_rgb
from swin_lab.data.names import Names
from swin_lab.data.sources.folder import existing_folder
from swin_lab.errors import UserError

PATTERNS = {"train": ("*train*.tar",), "val": ("*val*.tar", "*test*.tar")}


class Shards:
    """`root/*train*.tar` and `root/*val*.tar`; a sample is `KEY.jpg` beside `KEY.cls`, which holds the class index as text.

    Class names are the lines of `root/classes.txt`, which `swin-lab data pack` writes; without it, the indices.

    Args:
        root: the folder.
        val_only: whether there is only something to evaluate.

    Raises:
        UserError: shards are missing or damaged, or an image has no class.
    """

    def __init__(self, root: str, val_only: bool = False) -> None:
        top = existing_folder(root)
        val = _index(top, "val")
        train = None if val_only else _index(top, "train")
        highest = max(int(part.labels.max()) for part in (train, val) if part is not None)
        listed = top / "classes.txt"
        self.class_names = listed.read_text().splitlines() if listed.is_file() else [str(i) for i in range(highest + 1)]
        if highest >= len(self.class_names):
            raise UserError(f"{listed} names {len(self.class_names)} classes, and the shards have class index {highest}")
        self.train: ImageSet = train or NO_IMAGES
        self.val: ImageSet = val


class ShardImages:
    """Images inside tar files.

    Args:
        files: the tar files.
        keys: name of each sample.
        labels: class indices.
        where: (N, 3) of int64: which file, where the image starts in it, and its size.
    """

    def __init__(self, files: list[Path], keys: Names, labels: np.ndarray, where: np.ndarray) -> None:
        self.files = files
        self.keys = keys
        self.labels = labels
        self.where = where

    def image(self, index: int) -> Image.Image:
        shard, start, size = self.where[index].tolist()
        with self.files[shard].open("rb") as file:
            file.seek(start)
            return open_rgb(file.read(size))

    def name(self, index: int) -> str:
        return f"{self.files[int(self.where[index, 0])]}@/{self.keys[index]}"


def _index(top: Path, split: str) -> ShardImages:
    """Reads the headers of all shards of a split."""
    files = next((found for pattern in PATTERNS[split] if (found := sorted(top.glob(pattern)))), [])
    if not files:
        raise UserError(
            f"{top} has no {' or '.join(PATTERNS[split])}; shards are written by: swin-lab data pack data=... --out {top}"
        )
    keys: list[str] = []
    labels: list[int] = []
    where: list[tuple[int, int, int]] = []
    for shard, file in enumerate(files):
        for key, (start, size, label) in _samples(file).items():
            keys.append(key)
            labels.append(label)
            where.append((shard, start, size))
    if not keys:
        raise UserError(f"{files[0]} and the other shards of {split} hold no images with a class (KEY.jpg and KEY.cls)")
    return ShardImages(files, Names(keys), np.array(labels, dtype=np.int64), np.array(where, dtype=np.int64))


def _samples(file: Path) -> dict[str, tuple[int, int, int]]:
    """Key -> start and size of the image, and its class."""
    images: dict[str, tuple[int, int]] = {}
    classes: dict[str, int] = {}
    try:
        with file.open("rb") as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if member.isdir() or path.name.startswith("."):
                    continue
                stem, _, kind = path.name.partition(".")
                key = str(path.with_name(stem))
                if f".{kind.lower()}" in IMG_EXTENSIONS:
                    images[key] = (member.offset_data, member.size)
                elif kind == "cls":
                    held = archive.extractfile(member)
                    classes[key] = int(held.read()) if held is not None else -1
            opened.seek(archive.offset)  # tarfile takes a damaged header for the end, which is a block of zeros
            if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"it is damaged or cut off at byte {archive.offset:,}; copy or pack it again")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a shard: {error}") from error
    lost = next((key for key in images if classes.get(key, -1) < 0), None)
    if lost is not None:
        raise UserError(f"{file}: image {lost} has no class; a {lost}.cls with a class index belongs beside it")
    return {key: (*place, classes[key]) for key, place in images.items()}
