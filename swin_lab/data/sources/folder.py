"""A tree of folders, one per class, as ImageNet and torchvision's ImageFolder have it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from swin_lab.data.images import NO_IMAGES, ImageSet, open_rgb, split_by_class
from swin_lab.data.names import Names
from swin_lab.errors import UserError

VALIDATION_NAMES = ("val", "valid", "validation", "test")
PREPARE = "for ImageNet's validation images: swin-lab data prepare-val {folder} --labels LOC_val_solution.csv"


class Folder:
    """`root/train/CLASS/*.jpg` with `root/val/CLASS/*.jpg` beside it, or one tree `root/CLASS/*.jpg` that is split here.

    Class names are the folder names of the training tree, sorted; hidden folders are ignored.

    Args:
        root: the tree.
        val_fraction: part of every class that is held out where there is no validation folder.
        split_seed: which ones.
        val_only: whether there is only something to evaluate: the validation folder, or the whole tree where there is none.

    Raises:
        UserError: a folder is missing, holds no classes or no images, or the two trees have different classes.
    """

    def __init__(self, root: str, val_fraction: float = 0.1, split_seed: int = 0, val_only: bool = False) -> None:
        top = existing_folder(root)
        self.train: ImageSet = NO_IMAGES
        if val_only:
            tree = _validation_folder(top) or top
            self.class_names = _class_names(tree)
            self.val: ImageSet = _scan(tree, self.class_names)
        elif (top / "train").is_dir():
            self.class_names = _class_names(top / "train")
            self.train = _scan(top / "train", self.class_names)
            self.val = self._validation_tree(top)
        elif set(_class_names(top)) <= set(VALIDATION_NAMES):
            raise UserError(
                f"{top} has no train/ beside its validation folder; give its train/, or data.val_only=true to evaluate only"
            )
        else:
            self.class_names = _class_names(top)
            images = _scan(top, self.class_names)
            train, val = split_by_class(images.labels, val_fraction, split_seed)
            self.train, self.val = images.part(train), images.part(val)

    def _validation_tree(self, top: Path) -> "FileImages":
        found = _validation_folder(top)
        if found is None:
            raise UserError(f"{top} has train/ and no val/; add val/, or give data.root={top / 'train'} to split that tree")
        names = _class_names(found)
        unknown, absent = sorted(set(names) - set(self.class_names)), sorted(set(self.class_names) - set(names))
        if unknown:
            raise UserError(
                f"{found} has classes that train/ has not: {_listed(unknown)}.\n"
                f"Name them as in train/, or take them away: mv {found / unknown[0]} ELSEWHERE"
            )
        if absent:
            raise UserError(
                f"{found} lacks classes that train/ has: {_listed(absent)}.\n"
                f"Add their images, or leave them out of training: mv {top / 'train' / absent[0]} ELSEWHERE"
            )
        return _scan(found, self.class_names)


class FileImages:
    """Image files and their classes.

    Args:
        tree: the folder that all of them are in.
        files: their paths in it.
        labels: class indices.
    """

    def __init__(self, tree: Path, files: Names, labels: np.ndarray) -> None:
        self.tree = tree
        self.files = files
        self.labels = labels

    def part(self, indices: np.ndarray) -> "FileImages":
        """Those at the given places."""
        return FileImages(self.tree, self.files.part(indices), self.labels[indices])

    def image(self, index: int) -> Image.Image:
        return open_rgb(self.tree / self.files[index])

    def name(self, index: int) -> str:
        return str(self.tree / self.files[index])


def existing_folder(root: str) -> Path:
    """As an absolute path; raises UserError if there is no such folder."""
    top = Path(root).expanduser().absolute()
    if not top.is_dir():
        raise UserError(f"data.root={root}: there is no folder {top}")
    return top


def _validation_folder(top: Path) -> Path | None:
    return next((top / name for name in VALIDATION_NAMES if (top / name).is_dir()), None)


def _class_names(tree: Path) -> list[str]:
    with os.scandir(tree) as entries:
        kinds = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    names = sorted(name for name, is_folder in kinds if is_folder)
    if not names:
        files = sum(_has_image_suffix(name) for name, _ in kinds)
        raise UserError(
            f"{tree} has {files} images and no class folders; put each class's images into a folder of its name;\n"
            + PREPARE.format(folder=tree)
        )
    return names


def _scan(tree: Path, class_names: Sequence[str]) -> FileImages:
    counts: list[int] = []

    def walked() -> Iterator[str]:
        for name in class_names:
            of_class = sorted(_images_under(tree / name, name))
            if not of_class:
                raise UserError(
                    f"class folder {tree / name} holds no images ({' '.join(IMG_EXTENSIONS)}); "
                    f"add some or remove it: rmdir {tree / name}"
                )
            counts.append(len(of_class))
            yield from of_class

    files = Names(walked())
    return FileImages(tree, files, np.repeat(np.arange(len(counts)), counts))


def _images_under(folder: Path, path: str) -> Iterator[str]:
    """Paths of image files, each behind `path`; hidden files and folders are left out."""
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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
