"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in the "python version" files that torchvision reads."""

from typing import Literal

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from swin_lab.data.images import ArrayImages
from swin_lab.data.sources.folder import absolute_path
from swin_lab.errors import UserError
from swin_lab.validation import Text

DATASETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


class Cifar:
    """Provides 50,000 training and 10,000 test images of 32x32 pixels; `val` is the test set.

    Args:
        variant: which of the two.
        root: folder that contains `cifar-10-batches-py` or `cifar-100-python`, or that they are downloaded to.
        download: whether missing files are downloaded.

    Raises:
        UserError: the files are damaged, or missing and cannot be downloaded.
    """

    def __init__(self, variant: Literal["cifar10", "cifar100"], root: Text, download: bool = True) -> None:
        dataset, folder = DATASETS[variant], absolute_path(root)
        try:
            splits = [dataset(folder, train=train, download=download) for train in (True, False)]
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{variant} is not in {folder / dataset.base_folder} and could not be downloaded ({error}).\n"
                f"Unpack {dataset.url} into {folder}, or set data.root to the folder that contains {dataset.base_folder}/."
            ) from error
        self.class_names = list(splits[0].classes)
        self.train, self.val = (
            ArrayImages(split.data, np.asarray(split.targets), f"{variant} {name}")
            for split, name in zip(splits, ("train", "test"), strict=True)
        )
