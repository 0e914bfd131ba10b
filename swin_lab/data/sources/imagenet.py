"""ImageNet-1k and -22k in any layout, checked against the original's classes and numbers of images."""

import logging
import re
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np

from swin_lab.data.images import ImageSet, ImageSource
from swin_lab.data.sources.folder import VALIDATION_NAMES, Folder, existing_folder
from swin_lab.data.sources.listed import Listed
from swin_lab.data.sources.parquet import HUB, Parquet
from swin_lab.data.sources.shards import Shards
from swin_lab.data.sources.zipped import Zipped
from swin_lab.errors import UserError
from swin_lab.imagenet import ROWS_1K, ROWS_22K, wordnet_ids, words
from swin_lab.validation import PositiveInt, Text

log = logging.getLogger("swin_lab.data")

LISTS_22K = ("ILSVRC2011fall_whole_map_train.txt", "ILSVRC2011fall_whole_map_val.txt")
WORDNET_ID = re.compile(r"n\d{8}")

Layout = Literal["folder", "zip", "list", "parquet", "shards"]

OPENERS: dict[Layout, Callable[[str, bool], ImageSource]] = {
    "folder": lambda root, val_only: Folder(root, val_only=val_only),
    "zip": lambda root, val_only: Zipped(root, val_only),
    "list": lambda root, val_only: Listed(root, *LISTS_22K, val_only=val_only),
    "parquet": lambda root, val_only: Parquet(root, val_only=val_only),
    "shards": lambda root, val_only: Shards(root, val_only),
}
"""Layout -> the source that reads it."""

MAX_UNKNOWN_WORDS = 0.1
"""Fraction of the classes that may be named by other words than the known ones."""

CLASSES = {"imagenet1k": ROWS_1K, "imagenet22k": ROWS_22K}
"""Number of classes of each variant."""


class ImageNet:
    """Reads one of five layouts: class folders, the official zip and map files, annotation lists, parquet files, or tar shards.

    Class names are WordNet ids in the order of their indices. Differences from the original are logged as warnings.

    Args:
        variant: which of the two.
        root: the folder, or hf://datasets/ILSVRC/imagenet-1k for the data set of the Hugging Face hub.
        layout: how the images are stored; auto detects it.
        train_images: expected number of training images; if None, it is not checked.
        val_images: expected number of validation images; if None, it is not checked.
        val_only: whether only validation images are read, for an evaluation.

    Raises:
        UserError: the layout is not detected, or the classes are not those of ImageNet in the original order.
    """

    def __init__(
        self,
        variant: Literal["imagenet1k", "imagenet22k"],
        root: Text,
        layout: Literal["auto", Layout] = "auto",
        train_images: PositiveInt | None = None,
        val_images: PositiveInt | None = None,
        val_only: bool = False,
    ) -> None:
        self.layout: Layout = _detected_layout(root, val_only) if layout == "auto" else layout
        if variant == "imagenet22k" and self.layout == "folder":
            raise UserError(
                f"{root}: sorted class folders are not in the order of Swin's 22k heads (from row 9205);\n"
                f"give the lists {' and '.join(LISTS_22K)}, or data=folder for a new head in the order of the folders"
            )
        source = OPENERS[self.layout](root, val_only)
        self.train: ImageSet = source.train
        self.val: ImageSet = source.val
        self.class_names = _checked_classes(source.class_names, variant, root)
        _warn_of_other_number(root, "training", self.train, train_images)
        _warn_of_other_number(root, "validation", self.val, val_images)
        for label in np.setdiff1d(np.arange(len(self.class_names)), np.unique(self.train.labels))[:1]:
            if len(self.train.labels):
                log.warning("class %d (%s) has no training images", label, self.class_names[label])


def _warn_of_other_number(root: str, name: str, images: ImageSet, expected: int | None) -> None:
    found = len(images.labels)
    if expected is not None and found not in (0, expected):
        log.warning(
            "%s has %s %s images, the original %s: accuracies cannot be compared with published ones",
            root,
            f"{found:,}",
            name,
            f"{expected:,}",
        )


def _detected_layout(root: str, val_only: bool) -> Layout:
    """Detects the layout by the files in a folder; the first match in OPENERS is used."""
    if root.startswith(HUB):
        return "parquet"
    top = existing_folder(root)
    signs: dict[Layout, list[Path]] = {
        "folder": [top / name for name in ("train", *VALIDATION_NAMES) if (top / name).is_dir()],
        "zip": [*top.glob("train.zip"), *top.glob("val.zip")],
        "list": [top / name for name in LISTS_22K if (top / name).is_file()],
        "parquet": [*top.glob("*.parquet"), *top.glob("data/*.parquet")],
        "shards": list(top.glob("*.tar")),
    }
    if any(top.glob("ILSVRC2012_img_*.tar")) and not (signs["folder"] or signs["zip"]):
        raise UserError(f"{top} contains the downloaded archives; unpack them first: docs/reproduce.md, section 2")
    found = [layout for layout, files in signs.items() if files]
    if not found and val_only and any(WORDNET_ID.fullmatch(path.name) for path in top.iterdir()):
        return "folder"  # ImageNet-A and -R have class folders without train/ and val/.
    if not found:
        raise UserError(
            f"{top} contains ImageNet in none of the known layouts: train/ and val/ folders, train.zip and val.zip with maps,\n"
            f"{LISTS_22K[0]}, *.parquet, or *.tar shards"
        )
    return found[0]


def _checked_classes(names: list[str], variant: str, root: str) -> list[str]:
    """Returns the WordNet ids of the classes, whose names are ids, words in English as in parquet files, or indices."""
    expected = CLASSES[variant]
    by_id = [name for name in names if WORDNET_ID.fullmatch(name)]
    known = list(wordnet_ids(ROWS_1K) or ())
    if variant == "imagenet1k" and by_id and set(names) < set(known):  # for example ImageNet-A and -R
        log.info("note       %s has %d of the %d classes", root, len(names), expected)
        return names
    if len(names) != expected:
        raise UserError(
            f"{root} has {len(names)} classes, {variant} has {expected}; "
            "for other data choose data=folder, zip, listed, parquet or shards"
        )
    if variant == "imagenet1k":
        if not by_id:
            _check_words(names, root)
            return known
        wrong = next((i for i, (a, b) in enumerate(zip_longest(names, known)) if a != b), None)
        if wrong is not None:
            raise UserError(
                f"{root}: class {wrong} is {names[wrong]}, in {variant} it is {known[wrong]}; "
                "indices must follow the sorted WordNet ids (not the ILSVRC ids of the devkit)"
            )
    return names


def _check_words(names: list[str], root: str) -> None:
    """Checks that names in English follow the order of the WordNet ids, by the known words of the classes.

    Published lists differ in a few words ("crane bird" for "crane") and contain one word for several classes ("crane"), so a
    name is wrong if it belongs to another class and not to its own.

    Raises:
        UserError: a name is that of another class, or most of the names are not those of ImageNet.
    """
    if names == [str(index) for index in range(len(names))]:
        return
    known = [words(name) for name in wordnet_ids(ROWS_1K) or ()]
    classes_of: dict[str, set[int]] = {}
    for index, text in enumerate(known):
        for synonym in _synonyms(text) | {text.lower()}:
            classes_of.setdefault(synonym, set()).add(index)
    unknown = []
    for index, name in enumerate(names):
        whole = classes_of.get(name.lower(), set())
        own = index in whole if whole else bool(_synonyms(name) & _synonyms(known[index]))
        others = whole or set().union(*(classes_of.get(synonym, set()) for synonym in _synonyms(name)))
        if not own and others:
            raise UserError(
                f"{root}: class {index} is {name!r}, in imagenet1k it is {known[index]!r}; "
                "classes must follow the sorted WordNet ids"
            )
        if not own and not set(re.findall(r"\w+", name.lower())) & set(re.findall(r"\w+", known[index].lower())):
            unknown.append(index)
    if len(unknown) > len(names) * MAX_UNKNOWN_WORDS:
        raise UserError(
            f"{root}: class {unknown[0]} is {names[unknown[0]]!r}, in imagenet1k it is {known[unknown[0]]!r}; "
            "name the classes by their WordNet ids, or choose another data= for other classes"
        )
    for index in unknown[:1]:
        log.warning("%d class names are not those of ImageNet, such as class %d: %r", len(unknown), index, names[index])


def _synonyms(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",")}
