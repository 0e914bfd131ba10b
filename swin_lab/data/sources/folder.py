"""One folder of images per class, as for ImageNet and torchvision's ImageFolder."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from swin_lab.data.images import NO_IMAGES, ImageSet
from swin_lab.data.names import FileNames
from swin_lab.data.splitting import ValFraction, split_by_class
from swin_lab.errors import UserError
from swin_lab.validation import NonNegativeInt

VALIDATION_NAMES = ("val", "valid", "validation", "test")
PREPARE = "for ImageNet's validation images: swin-lab data prepare-val {folder} --labels LOC_val_solution.csv"


class Folder:
    """Reads `root/train/CLASS/*.jpg` and `root/val/CLASS/*.jpg`, or one set of class folders `root/CLASS/*.jpg` that is split.

    Class names are the names of the training folders, sorted; hidden folders are ignored.

    Args:
        root: the folder of `train` and `val`, or of the classes.
        val_fraction: fraction of every class in the validation set, if there is no `train` folder.
        split_seed: seed of the split.
        val_only: whether only validation images are read, for an evaluation: the validation folder, or all class folders if
            there is no validation folder.

    Raises:
        UserError: a folder is missing, contains no classes or no images, or training and validation have different classes.
    """

    def __init__(
        self, root: str, val_fraction: ValFraction = 0.1, split_seed: NonNegativeInt = 0, val_only: bool = False
    ) -> None:
        top = existing_folder(root)
        self.train: ImageSet = NO_IMAGES
        if val_only:
            folder = _validation_folder(top) or top
            self.class_names = _class_names(folder)
            self.val: ImageSet = _scan(folder, self.class_names)
        elif (top / "train").is_dir():
            self.class_names = _class_names(top / "train")
            self.train = _scan(top / "train", self.class_names)
            self.val = self._validation_images(top)
        elif set(_class_names(top)) <= set(VALIDATION_NAMES):
            raise UserError(
                f"{top} has a validation folder but no train/; add train/, or give data.val_only=true to evaluate only"
            )
        else:
            self.class_names = _class_names(top)
            images = _scan(top, self.class_names)
            train, val = split_by_class(images.labels, val_fraction, split_seed)
            self.train, self.val = images.select(train), images.select(val)

    def _validation_images(self, top: Path) -> "FileImages":
        found = _validation_folder(top)
        if found is None:
            raise UserError(
                f"{top} has train/ but no val/; add val/, or give data.root={top / 'train'} to split the training images"
            )
        names = _class_names(found)
        unknown, absent = sorted(set(names) - set(self.class_names)), sorted(set(self.class_names) - set(names))
        if unknown:
            raise UserError(
                f"{found} contains classes that train/ does not contain: {_enumerated(unknown)}.\n"
                f"Rename them as in train/, or move them away: mv {found / unknown[0]} ELSEWHERE"
            )
        if absent:
            raise UserError(
                f"{found} lacks classes of train/: {_enumerated(absent)}.\n"
                f"Add their images, or leave them out of training: mv {top / 'train' / absent[0]} ELSEWHERE"
            )
        return _scan(found, self.class_names)


class FileImages:
    """Provides image files and their classes.

    Args:
        folder: the folder that contains all of them.
        files: (N,) their paths relative to `folder`.
        labels: (N,) class indices.
    """

    def __init__(self, folder: Path, files: FileNames, labels: np.ndarray) -> None:
        self.folder = folder
        self.files = files
        self.labels = labels

    def select(self, indices: np.ndarray) -> "FileImages":
        """Returns the images at the given indices."""
        return FileImages(self.folder, self.files.select(indices), self.labels[indices])

    def encoded(self, index: int) -> bytes:
        """Reads a file."""
        return (self.folder / self.files[index]).read_bytes()

    def name(self, index: int) -> str:
        """Returns the path of an image."""
        return str(self.folder / self.files[index])


def existing_folder(root: str) -> Path:
    """Returns the absolute path of `data.root`; raises UserError if it does not exist."""
    top = Path(root).expanduser().absolute()
    if not top.is_dir():
        raise UserError(f"data.root={root}: the folder {top} does not exist")
    return top


def _validation_folder(top: Path) -> Path | None:
    return next((top / name for name in VALIDATION_NAMES if (top / name).is_dir()), None)


def _class_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        kinds = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    names = sorted(name for name, is_folder in kinds if is_folder)
    if not names:
        files = sum(_has_image_suffix(name) for name, _ in kinds)
        raise UserError(
            f"{folder} contains {files} images but no class folders; put the images of each class into a folder;\n"
            + PREPARE.format(folder=folder)
        )
    return names


def _scan(folder: Path, class_names: Sequence[str]) -> FileImages:
    """Finds the images of all class folders, in sorted order."""
    counts: list[int] = []

    def paths() -> Iterator[str]:
        for name in class_names:
            paths_of_class = sorted(_images_under(folder / name, name))
            if not paths_of_class:
                raise UserError(
                    f"class folder {folder / name} contains no images ({' '.join(IMG_EXTENSIONS)}); "
                    f"add some or remove it: rmdir {folder / name}"
                )
            counts.append(len(paths_of_class))
            yield from paths_of_class

    files = FileNames(paths())
    return FileImages(folder, files, np.repeat(np.arange(len(counts)), counts))


def _images_under(folder: Path, path: str) -> Iterator[str]:
    """Returns the paths of image files, each prefixed with `path`; hidden files and folders are left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _images_under(folder / entry.name, f"{path}/{entry.name}")
            elif _has_image_suffix(entry.name) and entry.is_file():
                yield f"{path}/{entry.name}"


def _has_image_suffix(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS)


def _enumerated(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
