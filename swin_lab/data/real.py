"""ReaL labels of the ImageNet-1k validation images: all classes that people see in each (arXiv 2006.07159)."""

import json
import pkgutil
import re

import torch
from torch import Tensor

from swin_lab.data.images import ImageSet
from swin_lab.errors import UserError

IMAGENET_CLASSES = 1000
NAME = re.compile(r"ILSVRC2012_val_(\d{8})")


def real_labels(images: ImageSet, num_classes: int) -> Tensor:
    """The classes of each image, found by its file name.

    Args:
        images: of the validation set, or a part of it, in any order.
        num_classes: of the data, which must be all of ImageNet-1k in the order of WordNet ids.

    Returns:
        (N, most) class indices, filled up with -1; an image that has none is not scored.

    Raises:
        UserError: these are other classes, or an image whose name does not tell which it is.
    """
    if num_classes != IMAGENET_CLASSES:
        raise UserError(f"real=true is for the {IMAGENET_CLASSES} classes of ImageNet-1k; the data has {num_classes}")
    held = pkgutil.get_data("timm.data", "_info/imagenet_real_labels.json")
    if held is None:
        raise UserError("real=true needs the ReaL labels that timm ships; install a newer timm")
    answers: list[list[int]] = json.loads(held)
    found = []
    for index in range(len(images.labels)):
        name = images.name(index)
        told = NAME.search(name)
        if told is None or not 1 <= int(told[1]) <= len(answers):
            raise UserError(f"real=true goes by file names like ILSVRC2012_val_00000001.JPEG; {name} is none")
        found.append(answers[int(told[1]) - 1])
    table = torch.full((len(found), max(1, *map(len, found), 1)), -1)
    for row, classes in zip(table, found, strict=True):
        row[: len(classes)] = torch.tensor(classes, dtype=torch.long)
    return table
