"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in the "python version" files of torchvision."""

from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from swin_lab.data.images import ArrayImages
from swin_lab.errors import UserError, did_you_mean

VARIANTS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


class Cifar:
    """50,000 training and 10,000 test images of 32x32 pixels; `val` is the test set.

    Args:
        variant: "cifar10" or "cifar100".
        root: folder that holds `cifar-10-batches-py` or `cifar-100-python`, or where they are put.
        download: whether to fetch the files if they are missing.

    Raises:
        UserError: the files are missing and cannot be fetched, or are damaged.
    """

    def __init__(self, variant: str, root: str, download: bool = True) -> None:
        if variant not in VARIANTS:
            raise UserError(f"data.variant={variant} is unknown{did_you_mean(variant, VARIANTS)}")
        kind, folder = VARIANTS[variant], Path(root).expanduser().absolute()
        try:
            splits = [kind(folder, train=train, download=download) for train in (True, False)]
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{variant} is not in {folder / kind.base_folder} and could not be fetched ({error}).\n"
                f"Unpack {kind.url} into {folder}, or set data.root to the folder that holds {kind.base_folder}/."
            ) from error
        self.class_names = list(splits[0].classes)
        self.train, self.val = (
            ArrayImages(split.data, np.asarray(split.targets), f"{variant} {name}")
            for split, name in zip(splits, ("train", "test"), strict=True)
        )
