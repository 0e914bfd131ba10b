"""ImageNet-1k and -22k, whichever way they lie on a disk, checked against what they should be."""

import logging
import re
from collections.abc import Callable
from itertools import zip_longest

import numpy as np

from swin_lab.data.images import ImageSet, ImageSource
from swin_lab.data.sources.folder import VALIDATION_NAMES, Folder, existing_folder
from swin_lab.data.sources.listed import Listed
from swin_lab.data.sources.parquet import HUB, Parquet
from swin_lab.data.sources.shards import Shards
from swin_lab.data.sources.zipped import Zipped
from swin_lab.errors import UserError, did_you_mean
from swin_lab.imagenet import ROWS_1K, ROWS_22K, wordnet_ids

log = logging.getLogger("swin_lab.data")

LISTS_22K = ("ILSVRC2011fall_whole_map_train.txt", "ILSVRC2011fall_whole_map_val.txt")
WORDNET_ID = re.compile(r"n\d{8}")

OPENERS: dict[str, Callable[[str, bool], ImageSource]] = {
    "folder": lambda root, val_only: Folder(root, val_only=val_only),
    "zip": lambda root, val_only: Zipped(root, val_only),
    "list": lambda root, val_only: Listed(root, *LISTS_22K, val_only=val_only),
    "parquet": lambda root, val_only: Parquet(root, val_only=val_only),
    "shards": lambda root, val_only: Shards(root, val_only),
}
"""What each layout is read by."""

CLASSES = {"imagenet1k": ROWS_1K, "imagenet22k": ROWS_22K}


class ImageNet:
    """One of five layouts: class folders, the official zip and map files, annotation lists, parquet files, or tar shards.

    Class names are WordNet ids in the order of their indices. What differs from the original is told before the first update.

    Args:
        variant: imagenet1k or imagenet22k.
        root: the folder; hf://datasets/ILSVRC/imagenet-1k for the hub's.
        layout: folder, zip, list, parquet or shards; auto finds out.
        train_images: how many there should be; None where no number is known.
        val_images: likewise.
        val_only: whether there is only something to evaluate.

    Raises:
        UserError: the layout is not found, or the classes are not ImageNet's in ImageNet's order.
    """

    def __init__(
        self,
        variant: str,
        root: str,
        layout: str = "auto",
        train_images: int | None = None,
        val_images: int | None = None,
        val_only: bool = False,
    ) -> None:
        if variant not in CLASSES:
            raise UserError(f"data.variant={variant} is unknown{did_you_mean(variant, CLASSES)}")
        if layout not in {"auto", *OPENERS}:
            raise UserError(f"data.layout={layout} is unknown{did_you_mean(layout, {'auto', *OPENERS})}")
        self.layout = _layout_of(root, val_only) if layout == "auto" else layout
        if variant == "imagenet22k" and self.layout == "folder":
            raise UserError(
                f"{root}: sorted class folders are not in the order of Swin's 22k heads (from row 9205 on);\n"
                f"give the lists {' and '.join(LISTS_22K)}, or data=folder for a head of your own order"
            )
        source = OPENERS[self.layout](root, val_only)
        self.train: ImageSet = source.train
        self.val: ImageSet = source.val
        self.class_names = _checked_classes(source.class_names, variant, root)
        for name, images, expected in (("training", self.train, train_images), ("validation", self.val, val_images)):
            found = len(images.labels)
            if expected is not None and found not in (0, expected):
                log.warning(
                    "%s has %s %s images, the original %s: accuracies cannot be compared with published ones",
                    root,
                    f"{found:,}",
                    name,
                    f"{expected:,}",
                )
        for label in np.setdiff1d(np.arange(len(self.class_names)), np.unique(self.train.labels))[:1]:
            if len(self.train.labels):
                log.warning("class %d (%s) has no training images", label, self.class_names[label])


def _layout_of(root: str, val_only: bool) -> str:
    if root.startswith(HUB):
        return "parquet"
    top = existing_folder(root)
    signs = {
        "folder": [top / name for name in ("train", *VALIDATION_NAMES) if (top / name).is_dir()],
        "zip": [*top.glob("train.zip"), *top.glob("val.zip")],
        "list": [top / name for name in LISTS_22K if (top / name).is_file()],
        "parquet": [*top.glob("*.parquet"), *top.glob("data/*.parquet")],
        "shards": list(top.glob("*.tar")),
    }
    if any(top.glob("ILSVRC2012_img_*.tar")) and not (signs["folder"] or signs["zip"]):
        raise UserError(f"{top} holds the archives as they are downloaded; unpack them first: docs/reproduce.md, section 2")
    found = [layout for layout, files in signs.items() if files]
    if not found and val_only and any(WORDNET_ID.fullmatch(path.name) for path in top.iterdir()):
        return "folder"  # class folders without a folder around them, as ImageNet-A and -R have them
    if not found:
        raise UserError(
            f"{top} holds no ImageNet in a layout that is known: train/ and val/ folders, train.zip and val.zip with maps,\n"
            f"{LISTS_22K[0]}, *.parquet, or *.tar shards"
        )
    return found[0]


def _checked_classes(names: list[str], variant: str, root: str) -> list[str]:
    """As WordNet ids; names in words, as parquet files have them, and bare indices are taken to be in the right order."""
    expected = CLASSES[variant]
    by_id = [name for name in names if WORDNET_ID.fullmatch(name)]
    known = list(wordnet_ids(ROWS_1K) or ())
    if variant == "imagenet1k" and by_id and set(names) < set(known):  # such as ImageNet-A and -R
        log.info("note       %s has %d of the %d classes", root, len(names), expected)
        return names
    if len(names) != expected:
        raise UserError(
            f"{root} has {len(names)} classes, {variant} has {expected}; "
            "for other data choose data=folder, zip, listed, parquet or shards"
        )
    if variant == "imagenet1k":
        if not by_id:
            return known
        wrong = next((i for i, (a, b) in enumerate(zip_longest(names, known)) if a != b), None)
        if wrong is not None:
            raise UserError(
                f"{root}: class {wrong} is {names[wrong]}, in {variant} it is {known[wrong]}; "
                "indices must follow the sorted WordNet ids (not the ILSVRC ids of the devkit)"
            )
    return names
