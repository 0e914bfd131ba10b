"""Images named in annotation lists, as the official code reads ImageNet-22k."""

import json
from pathlib import Path

import numpy as np

from swin_lab.data.images import NO_IMAGES, ImageSet
from swin_lab.data.names import FileNames, check_same_classes, classes_by_folder
from swin_lab.data.sources.folder import FileImages, existing_folder
from swin_lab.errors import UserError
from swin_lab.validation import PositiveInt


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
        self, root: str, train_list: str, val_list: str, num_classes: PositiveInt | None = None, val_only: bool = False
    ) -> None:
        top = existing_folder(root)
        val_names, val_labels = read_list(top / val_list)
        names, labels = (val_names, val_labels) if val_only else read_list(top / train_list)
        highest = max(int(labels.max()), int(val_labels.max()))
        if num_classes is not None and highest >= num_classes:
            raise UserError(f"{top}: the lists contain class index {highest}, and data.num_classes={num_classes}; increase it")
        self.class_names = classes_by_folder(names, labels, num_classes or highest + 1)
        check_same_classes(self.class_names, val_names, val_labels, f"{top / val_list}")
        self.train: ImageSet = NO_IMAGES if val_only else FileImages(top, names, labels)
        self.val: ImageSet = FileImages(top, val_names, val_labels)


def read_list(file: Path) -> tuple[FileNames, np.ndarray]:
    """Reads paths and class indices from an annotation list.

    Raises:
        UserError: the file is missing, malformed or empty.
    """
    try:
        text = file.read_text()
        if text.lstrip().startswith("["):
            entries = [(str(entry[0]), int(entry[1])) for entry in json.loads(text)]
        else:
            lines = [line.rsplit(maxsplit=1) for line in text.splitlines() if line.strip()]
            entries = [(path, int(label)) for path, label in lines]
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; data.root must be the folder that contains it") from error
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise UserError(f"{file} is not a list of images: each line must be a path and a class index ({error})") from error
    labels = np.array([label for _, label in entries], dtype=np.int64)
    if len(labels) == 0 or labels.min() < 0:
        raise UserError(f"{file} " + ("names no images" if len(labels) == 0 else "contains a negative class index"))
    return FileNames(path for path, _ in entries), labels
