"""A tree of folders, one per class, as ImageNet and torchvision's ImageFolder have it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from swin_lab.data.pictures import open_rgb, split_by_class
from swin_lab.errors import UserError

VALIDATION_NAMES = ("val", "valid", "validation", "test")


class Folder:
    """`root/train/CLASS/*.jpg` with `root/val/CLASS/*.jpg` beside it, or one tree `root/CLASS/*.jpg` that is split here.

    Class names are the folder names of the training tree, sorted; hidden folders are ignored.

    Args:
        root: the tree.
        val_fraction: part of every class that is held out where there is no validation folder.
        split_seed: which ones.

    Raises:
        UserError: a folder is missing, holds no classes or no pictures, or the two trees have different classes.
    """

    def __init__(self, root: str, val_fraction: float = 0.1, split_seed: int = 0) -> None:
        top = Path(root).expanduser().absolute()
        if not top.is_dir():
            raise UserError(f"data.root={root}: there is no folder {top}")
        if (top / "train").is_dir():
            self.class_names = _class_names(top / "train")
            self.train: FilePictures = _scan(top / "train", self.class_names)
            self.val: FilePictures = self._validation_tree(top)
        elif set(_class_names(top)) <= set(VALIDATION_NAMES):
            raise UserError(
                f"{top} has no train/ beside its validation folder; give its train/, or that folder itself as data.root"
            )
        else:
            self.class_names = _class_names(top)
            pictures = _scan(top, self.class_names)
            train, val = split_by_class(pictures.labels, val_fraction, split_seed)
            self.train, self.val = pictures.part(train), pictures.part(val)

    def _validation_tree(self, top: Path) -> "FilePictures":
        found = [top / name for name in VALIDATION_NAMES if (top / name).is_dir()]
        if not found:
            raise UserError(f"{top} has train/ and no val/; add val/, or give data.root={top / 'train'} to split that tree")
        names = _class_names(found[0])
        unknown, absent = sorted(set(names) - set(self.class_names)), sorted(set(self.class_names) - set(names))
        if unknown:
            raise UserError(f"{found[0]} has classes that train/ has not: {_listed(unknown)}")
        if absent:
            raise UserError(f"{found[0]} lacks classes that train/ has: {_listed(absent)}")
        return _scan(found[0], self.class_names)


class FilePictures:
    """Picture files and their classes."""

    def __init__(self, files: np.ndarray, labels: np.ndarray) -> None:
        self.files = files  # an array of strings, not a list: workers then share its memory
        self.labels = labels

    def part(self, indices: np.ndarray) -> "FilePictures":
        return FilePictures(self.files[indices], self.labels[indices])

    def picture(self, index: int) -> Image.Image:
        return open_rgb(Path(str(self.files[index])))

    def name(self, index: int) -> str:
        return str(self.files[index])


def _class_names(tree: Path) -> list[str]:
    entries = list(tree.iterdir())
    names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        files = sum(_is_picture(entry, tree) for entry in entries)
        raise UserError(
            f"{tree} has {files} pictures and no class folders; put each class's pictures into a folder of its name"
        )
    return names


def _scan(tree: Path, class_names: Sequence[str]) -> FilePictures:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        of_class = sorted(str(file) for file in (tree / name).rglob("*") if _is_picture(file, tree))
        if not of_class:
            raise UserError(
                f"class folder {tree / name} holds no pictures ({' '.join(IMG_EXTENSIONS)}); add some or remove the folder"
            )
        files += of_class
        labels += [label] * len(of_class)
    return FilePictures(np.asarray(files), np.asarray(labels))


def _is_picture(file: Path, tree: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(tree).parts)
    return file.suffix.lower() in IMG_EXTENSIONS and not hidden and file.is_file()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
