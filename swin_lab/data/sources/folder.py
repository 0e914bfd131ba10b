"""One folder of images per class, as for ImageNet and torchvision's ImageFolder."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from swin_lab.data.classes import is_one_line, printable
from swin_lab.data.images import NO_IMAGES, ImageSet, read_image_file
from swin_lab.data.names import FileNames
from swin_lab.data.splitting import SplitSeed, ValFraction, split_by_class
from swin_lab.errors import UserError
from swin_lab.validation import Text

log = logging.getLogger("swin_lab.data")

VALIDATION_NAMES = ("val", "valid", "validation", "test")
IMAGENET_VALIDATION = re.compile(r"ILSVRC2012_val_\d{8}\.(?i:jpe?g)")
"""File name of one of ImageNet's validation images, which are published in one flat folder."""


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

    def __init__(self, root: Text, val_fraction: ValFraction = 0.1, split_seed: SplitSeed = 0, val_only: bool = False) -> None:
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
                f"Rename them as in train/, or move them away: mv {printable(str(found / unknown[0]))} ELSEWHERE"
            )
        if absent:
            raise UserError(
                f"{found} lacks classes of train/: {_enumerated(absent)}.\n"
                f"Add their images, or leave them out of training: mv {printable(str(top / 'train' / absent[0]))} ELSEWHERE"
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
        return read_image_file(self.folder / self.files[index])

    def name(self, index: int) -> str:
        """Returns the path of an image, with escapes for bytes that are not UTF-8."""
        return printable(str(self.folder / self.files[index]))


def existing_folder(root: str) -> Path:
    """Returns the absolute path of `data.root`; raises UserError if there is no such folder."""
    top = absolute_path(root)
    if not top.is_dir():
        problem = f"{top} is a file; give the folder that contains it" if top.exists() else f"the folder {top} does not exist"
        raise UserError(f"data.root={root}: {problem}")
    return top


def absolute_path(root: str, name: str = "data.root") -> Path:
    """Returns an absolute path; raises UserError, with the name of the setting, if it cannot be the path of a folder."""
    if not root or not is_one_line(root):
        raise UserError(f"{name}={root!r} must be the path of a folder, in UTF-8 and without line breaks")
    try:
        top = Path(root).expanduser().absolute()
        top.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, a folder that is not readable, an unknown user
        raise UserError(f"{name}={root[:200]} is not the path of a folder: {getattr(error, 'strerror', error)}") from error
    return top


def _validation_folder(top: Path) -> Path | None:
    return next((top / name for name in VALIDATION_NAMES if (top / name).is_dir()), None)


def _class_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error
    for entry in found:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise UserError(f"{printable(entry.path)} is a link to nothing, so its class would be missing; fix or remove it")
    names = sorted(entry.name for entry in found if entry.is_dir())
    if not names:
        images = [entry.name for entry in found if has_image_suffix(entry.name)]
        contents = f"{len(images)} images but no class folders" if images else "no class folders"
        text = f"{folder} contains {contents}; put the images of each class into a folder"
        if any(map(IMAGENET_VALIDATION.fullmatch, images)):
            text += f";\nfor ImageNet's validation images: swin-lab data prepare-val {folder} --labels LOC_val_solution.csv"
        raise UserError(text)
    return names


def _scan(folder: Path, class_names: Sequence[str]) -> FileImages:
    """Finds the images of all class folders, in sorted order, and logs how many other files there are."""
    counts: list[int] = []
    left_out: Counter[str] = Counter()

    def paths() -> Iterator[str]:
        for name in class_names:
            paths_of_class = sorted(images_under(folder / name, f"{name}/", left_out))
            if not paths_of_class:
                where = printable(str(folder / name))
                raise UserError(
                    f"class folder {where} contains no images ({' '.join(IMG_EXTENSIONS)}); "
                    f"add some or remove it: rmdir {where}"
                )
            counts.append(len(paths_of_class))
            yield from paths_of_class

    try:
        files = FileNames(paths())
    except (OSError, RecursionError) as error:
        raise UserError(f"{folder} cannot be read: {printable(str(error))[:300]}") from error
    warn_of_left_out(folder, left_out)
    return FileImages(folder, files, np.repeat(np.arange(len(counts)), counts))


def warn_of_left_out(folder: Path, left_out: Counter[str]) -> None:
    """Logs how many files of a folder are not read, by the ends of their names."""
    if left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common(5))
        more = ", ..." if len(left_out) > 5 else ""
        log.warning("%s: not read are %s files: %s%s", folder, f"{left_out.total():,}", kinds, more)


def images_under(folder: Path, prefix: str, left_out: Counter[str], parents: tuple[os.stat_result, ...] = ()) -> Iterator[str]:
    """Returns the paths of image files in a folder and those below it; hidden files and folders are left out.

    Args:
        folder: the folder.
        prefix: beginning of every path.
        left_out: other files are counted in it, by the ends of their names, and so are links to nothing.
        parents: the folders that contain this one.

    Returns:
        The entries of each folder in the order of their names.
    """
    here = folder.stat()
    if any(os.path.samestat(here, parent) for parent in parents):
        raise UserError(f"{printable(str(folder))} is a link to a folder that contains it; remove the link")
    with os.scandir(folder) as opened:
        entries = sorted((entry for entry in opened if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        if _is_folder(entry):
            yield from images_under(folder / entry.name, f"{prefix}{entry.name}/", left_out, (*parents, here))
        elif entry.is_symlink() and not os.path.exists(entry.path):
            left_out["links to nothing"] += 1
        elif has_image_suffix(entry.name) and entry.is_file():
            yield f"{prefix}{entry.name}"
        else:
            suffix = os.path.splitext(entry.name)[1].lower()
            left_out[f"*{printable(suffix)}" if suffix else "without a suffix"] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def has_image_suffix(name: str) -> bool:
    """Returns whether a file has the name of an image."""
    return name.lower().endswith(IMG_EXTENSIONS)


def _enumerated(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
