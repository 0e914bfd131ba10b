"""Class names and class indices of every source: what they must be, checked in one place."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from swin_lab.data.images import ImageSet, ImageSource
from swin_lab.errors import UserError, is_one_line, printable
from swin_lab.metadata import check_class_names

__all__ = [
    "MAX_CLASSES",
    "NumClasses",
    "check_class_names",
    "check_source",
    "class_counts",
    "class_index",
    "class_shares",
    "count_classes",
    "has_several_labels",
    "is_one_line",
    "printable",
]

MAX_CLASSES = 1_000_000
"""Number of classes that a data set has at most; the largest published ones have some ten thousand."""

NumClasses = Annotated[int, Ge(1), Le(MAX_CLASSES)]


def class_index(value: Any) -> int:
    """Returns a class index that is an integer, or is written as one.

    Args:
        value: an integer or a string of digits.

    Raises:
        ValueError: it is not an integer, or too large. A negative index is returned; the caller knows what it means.
    """
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value) and len(value) < 20:
        value = int(value)
    if type(value) is not int:
        raise ValueError(f"{value!r} is not an integer")
    if value >= MAX_CLASSES:
        raise ValueError(f"class index {value} is above the maximum of {MAX_CLASSES - 1}")
    return value


def count_classes(where: str, *labels: Sequence[int] | np.ndarray) -> int:
    """Returns the highest class index of some sets plus one.

    Raises:
        UserError: the index is too high to be one; `where` names the data in the message.
    """
    highest = max(int(np.max(part)) for part in labels if len(part))
    if highest >= MAX_CLASSES:
        raise UserError(f"{where} has class index {highest}, above the maximum of {MAX_CLASSES - 1}; number the classes from 0")
    return highest + 1


def check_source(source: Any) -> ImageSource:
    """Checks a source of any class: its class names, and that its labels are indices of them.

    Raises:
        UserError: the object is not a source, its class names are invalid, or a label is not a class index.
    """
    for attribute in ("class_names", "train", "val"):
        if not hasattr(source, attribute):
            raise UserError(
                f"data: a {type(source).__name__} has no {attribute}; a source has class_names, train and val. "
                "For a torch dataset, choose data=dataset"
            )
    check_class_names(source.class_names)
    for part in ("train", "val"):
        labels = np.asarray(getattr(source, part).labels)
        if labels.ndim == 2:
            _check_several(part, labels, source.class_names)
            continue
        if labels.ndim != 1 or (len(labels) and not np.issubdtype(labels.dtype, np.integer)):
            raise UserError(
                f"data: the labels of {part} are of shape {labels.shape} and type {labels.dtype}; give (N,) integers"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(source.class_names):
            raise UserError(
                f"data: {part} has labels from {labels.min()} to {labels.max()} and {len(source.class_names)} class names"
            )
    checked: ImageSource = source
    return checked


def has_several_labels(images: ImageSet) -> bool:
    """Returns whether the labels of a set are 0 or 1 for each class, instead of class indices."""
    return np.ndim(images.labels) == 2


def class_counts(images: ImageSet, num_classes: int) -> tuple[int, ...]:
    """Returns the number of images of each class."""
    labels = np.asarray(images.labels)
    counts = labels.sum(axis=0, dtype=np.int64) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)
    return tuple(counts.tolist())


def class_shares(images: ImageSet, num_classes: int) -> tuple[float, ...] | None:
    """Returns the fraction of images that have each class; None without images."""
    count = len(images.labels)
    return tuple(number / count for number in class_counts(images, num_classes)) if count else None


def _check_several(part: str, labels: np.ndarray, class_names: Sequence[str]) -> None:
    if labels.dtype != np.uint8 or labels.shape[1] != len(class_names) or (labels.size and labels.max() > 1):
        raise UserError(
            f"data: the labels of {part} are of shape {labels.shape} and type {labels.dtype}; for several labels per image, "
            f"give (N, {len(class_names)}) of uint8, 0 or 1 for each of the {len(class_names)} class names"
        )
    if len(labels) and not labels.any():
        raise UserError(f"data: no image of {part} has a label; at least one needs to have one")
