"""Images under one folder, of which a file of targets names the classes, any number of classes per image."""

from collections import Counter
from pathlib import Path

import numpy as np

from swin_lab.data.classes import check_class_names, printable
from swin_lab.data.images import NO_IMAGES, ImageSet
from swin_lab.data.names import FileNames
from swin_lab.data.sources.folder import FileImages, existing_folder, images_under
from swin_lab.data.splitting import SplitSeed, ValFraction, split_by_class
from swin_lab.data.targets import Targets, read_targets
from swin_lab.errors import UserError, did_you_mean
from swin_lab.validation import Text

MAX_SEARCHED = 100_000
"""Number of images among whose names a similar one is searched for a message; among more, it takes long."""


class MultiLabel:
    """Reads the image files under a folder, at any depth, and their classes from files of targets.

    A name in a file of targets is the path of an image relative to `root`, or the end of exactly one such path, with or without
    its suffix. Every image under `root` has to be named.

    Args:
        root: the folder of the images, in folders of any names.
        targets: file of the targets, relative to `root` or absolute; `swin_lab.data.targets` explains its formats.
        val_targets: file of the targets of the validation images; if None, a part of the images of `targets`.
        separator: what separates class names in a CSV file; if None, it has a column of 0 and 1 for each class.
        val_fraction: fraction of the images in the validation set, if `val_targets` is None.
        split_seed: seed of the split.
        val_only: whether only validation images are read, for an evaluation: those of `val_targets`, or all if it is None. The
            classes are still those of `targets`.

    Raises:
        UserError: the folder or a file is missing or malformed, an image is named by no file or by both, or a name is unknown.
    """

    def __init__(
        self,
        root: Text,
        targets: Text,
        val_targets: Text | None = None,
        separator: Text | None = None,
        val_fraction: ValFraction = 0.1,
        split_seed: SplitSeed = 0,
        val_only: bool = False,
    ) -> None:
        top = existing_folder(root)
        first = read_targets(_existing_file(top, targets, "targets"), separator)
        check_class_names(first.class_names)
        self.class_names = first.class_names
        second = None
        if val_targets is not None:
            second = read_targets(_existing_file(top, val_targets, "val_targets"), separator, first.class_names)
        tree = _Tree(top)
        self.train: ImageSet = NO_IMAGES
        if second is not None:
            self.val: ImageSet = tree.images(second)
            if not val_only:
                self.train = tree.images(first)
                tree.check_all_named(first, second)
            return
        images = tree.images(first)
        tree.check_all_named(first)
        self.val = images
        if not val_only:
            train, val = split_by_class(images.labels, val_fraction, split_seed)
            self.train, self.val = images.select(train), images.select(val)


def _existing_file(top: Path, given: str, key: str) -> Path:
    file = top / Path(given).expanduser()
    if not file.is_file():
        problem = "is not a file" if file.exists() else "does not exist"
        raise UserError(f"data.{key}={given}: {file} {problem}; give it relative to data.root={top}, or absolute")
    return file


class _Tree:
    """Finds the images of files of targets among those under a folder.

    Args:
        top: the folder.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        try:
            self.paths = sorted(images_under(top, "", Counter()))
        except (OSError, RecursionError) as error:
            raise UserError(f"{top} cannot be read: {printable(str(error))[:300]}") from error
        if not self.paths:
            raise UserError(f"{top} contains no images; give the folder of the images as data.root")
        self.named: dict[Path, np.ndarray] = {}
        """File of targets -> the numbers of its images."""

    def images(self, targets: Targets) -> FileImages:
        """Returns the images that a file names, in the order of their paths.

        Raises:
            UserError: a name is not that of one image, or two names are those of the same image.
        """
        numbers = self._numbers(targets)
        repeated = next((number for number, count in Counter(numbers).items() if count > 1), None)
        if repeated is not None:
            raise UserError(
                f"{targets.file} names {printable(self.paths[repeated])} twice, with and without folder or suffix; remove one"
            )
        order = np.argsort(numbers)
        self.named[targets.file] = np.asarray(numbers)
        return FileImages(self.top, FileNames(self.paths[numbers[row]] for row in order), targets.labels[order])

    def check_all_named(self, *parts: Targets) -> None:
        """Raises UserError unless every image is named by one of the files, and by no more than one."""
        counts = np.bincount(np.concatenate([self.named[part.file] for part in parts]), minlength=len(self.paths))
        files = " and ".join(part.file.name for part in parts)
        unnamed, twice = np.flatnonzero(counts == 0), np.flatnonzero(counts > 1)
        if len(unnamed):
            hint = "Add" if len(parts) > 1 else "If these are validation images, set data.val_targets=FILE; else add"
            raise UserError(
                f"{len(unnamed):,} of {len(self.paths):,} images under {self.top} are not named in {files}, such as "
                f"{printable(self.paths[unnamed[0]])}\n{hint} them, all 0 if they have no label, or give a folder without them"
            )
        if len(twice):
            raise UserError(f"{printable(self.paths[twice[0]])} is named in both {files}; remove it from one of them")

    def _numbers(self, targets: Targets) -> list[int]:
        whole = {path: [number] for number, path in enumerate(self.paths)}
        ends = {} if all(name in whole for name in targets.names) else self._ends()
        numbers = []
        for name in targets.names:
            found = whole.get(name) or ends.get(name, [])
            numbers += found[:1]
            if len(found) == 1:
                continue
            if found:
                raise UserError(
                    f"{targets.file} names {printable(name)}, and {printable(self.paths[found[0]])} and "
                    f"{printable(self.paths[found[1]])} are called so; name their folders, too"
                )
            similar = did_you_mean(name, ends if len(self.paths) < MAX_SEARCHED else ())
            raise UserError(f"{targets.file} names {printable(name)[:200]}, which is not an image under {self.top}{similar}")
        return numbers

    def _ends(self) -> dict[str, list[int]]:
        """Returns the ends of all paths, with and without their suffix, and the numbers of up to two images that have each."""
        found: dict[str, list[int]] = {}
        for number, path in enumerate(self.paths):
            parts = path.split("/")
            ends = {"/".join(parts[start:]) for start in range(len(parts))}
            for name in ends | {end.rpartition(".")[0] for end in ends}:
                numbers = found.setdefault(name, [])
                if len(numbers) < 2:
                    numbers.append(number)
        return found
