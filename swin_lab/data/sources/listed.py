"""Images named in annotation lists, as the official code reads ImageNet-22k."""

import json
import os
from pathlib import Path

import numpy as np

from swin_lab.data.classes import NumClasses, class_index, count_classes, printable
from swin_lab.data.images import NO_IMAGES, ImageSet
from swin_lab.data.names import FileNames, check_same_classes, classes_by_folder
from swin_lab.data.sources.folder import FileImages, existing_folder
from swin_lab.errors import UserError
from swin_lab.validation import Text


class Listed:
    """Reads image files under one folder, by two lists of the training and validation images with their class indices.

    A list is JSON, `[["n00004475/n00004475_6590.JPEG", 0], ...]`, or text with one `path index` per line. A class has the name
    of the folder of its images.

    Args:
        root: the folder that paths in the lists are relative to.
        train_list: file of the training images, relative to `root` or absolute.
        val_list: file of the validation images, relative to `root` or absolute.
        num_classes: number of classes; if None, the highest index plus one.
        val_only: whether only the validation list is read, for an evaluation.

    Raises:
        UserError: a list is missing or malformed, or contains an index outside the classes.
    """

    def __init__(
        self, root: Text, train_list: Text, val_list: Text, num_classes: NumClasses | None = None, val_only: bool = False
    ) -> None:
        top = existing_folder(root)
        val_names, val_labels = read_list(top / val_list)
        names, labels = (val_names, val_labels) if val_only else read_list(top / train_list)
        count = count_classes(str(top), labels, val_labels)
        if num_classes is not None and count > num_classes:
            raise UserError(
                f"{top}: the lists contain class index {count - 1}, and data.num_classes={num_classes}; increase it"
            )
        self.class_names = classes_by_folder(names, labels, num_classes or count)
        check_same_classes(self.class_names, val_names, val_labels, f"{top / val_list}")
        self.train: ImageSet = NO_IMAGES if val_only else FileImages(top, names, labels)
        self.val: ImageSet = FileImages(top, val_names, val_labels)


def read_list(file: Path) -> tuple[FileNames, np.ndarray]:
    """Reads paths and class indices from an annotation list.

    Raises:
        UserError: the file is missing, malformed or empty, or gives an image two classes.
    """
    try:
        if file.exists() and not file.is_file():
            raise UserError(f"{file} is not a file; give the file of a list")
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")  # A file name need not be UTF-8.
        if text.lstrip().startswith("["):
            entries = [_entry(pair) for pair in json.loads(text)]
        else:
            entries = [_entry(line.rsplit(maxsplit=1)) for line in text.split("\n") if line.strip()]
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; data.root must be the folder that contains it") from error
    except UserError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        reason = printable(str(error))[:200]
        raise UserError(f"{file} is not a list of images: each line must be a path and a class index ({reason})") from error
    labels = np.array([label for _, label in entries], dtype=np.int64)
    if len(labels) == 0 or labels.min() < 0:
        raise UserError(f"{file} " + ("names no images" if len(labels) == 0 else "contains a negative class index"))
    names = FileNames(path for path, _ in entries)
    _check_one_class_each(file, names, labels)
    return names, labels


def _entry(pair: object) -> tuple[str, int]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError(f"{str(pair)[:100]} is not a pair")
    path, label = pair
    if not isinstance(path, str) or b"\0" in os.fsencode(path):
        raise ValueError(f"{path!r} is not a path")
    return path, class_index(label)


def _check_one_class_each(file: Path, names: FileNames, labels: np.ndarray) -> None:
    """Raises UserError if an image is listed with two classes; more than once with the same class is a weighted sampling."""
    encoded = names.array.dictionary_encode()
    if len(encoded.dictionary) == len(names):
        return
    codes = encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    pairs = np.stack([order[:-1], order[1:]], axis=1)
    differing = (codes[pairs[:, 0]] == codes[pairs[:, 1]]) & (labels[pairs[:, 0]] != labels[pairs[:, 1]])
    if differing.any():
        one, other = pairs[differing][0]
        raise UserError(
            f"{file} gives {printable(names[one])} the classes {labels[one]} and {labels[other]}; remove one of the two lines"
        )
