"""Reassessed labels (ReaL) of the ImageNet-1k validation images: all valid classes of each image (arXiv 2006.07159)."""

import json
import pkgutil
import re

import torch
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.imagenet import ROWS_1K
from swin_lab.training import DataDescription

NAME = re.compile(r"ILSVRC2012_val_(\d{8})")


def reassessed_labels(data: DataDescription) -> Tensor:
    """Returns all valid classes of every validation image, found by file name.

    Args:
        data: all of ImageNet-1k's classes in the order of WordNet ids, and the names of any part of its validation set.

    Returns:
        (N, K) class indices, padded with -1; an image without valid classes is left out of the ReaL metrics.

    Raises:
        UserError: the data has other classes, or the file name of an image does not identify it.
    """
    num_classes = len(data.class_names)
    if num_classes != ROWS_1K:
        raise UserError(f"task.real_labels=true needs the {ROWS_1K} classes of ImageNet-1k; the data has {num_classes}")
    packed = pkgutil.get_data("timm.data", "_info/imagenet_real_labels.json")
    if packed is None:
        raise UserError("task.real_labels=true needs the ReaL labels that timm ships; install a newer timm")
    labels: list[list[int]] = json.loads(packed)
    found = []
    for index in range(data.num_val_images):
        name = data.val_image_name(index)
        match = NAME.search(name)
        if match is None or not 1 <= int(match[1]) <= len(labels):
            raise UserError(f"task.real_labels=true needs file names like ILSVRC2012_val_00000001.JPEG, not {name}")
        found.append(labels[int(match[1]) - 1])
    table = torch.full((len(found), max(1, *map(len, found), 1)), -1)
    for row, classes in zip(table, found, strict=True):
        row[: len(classes)] = torch.tensor(classes, dtype=torch.long)
    return table
