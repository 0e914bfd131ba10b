"""Splits one set of images into a training and a validation set."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Lt

from swin_lab.errors import UserError

ValFraction = Annotated[float, Gt(0), Lt(1)]
"""The fraction of every class that becomes the validation set."""

SplitSeed = Annotated[int, Ge(0), Lt(2**32)]
"""The seed of a split or of random patterns, in the range of numpy's generators."""


def split_by_class(labels: Sequence[int] | np.ndarray, val_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits the images of every class in the same proportion (a stratified split); those with several labels at random.

    Args:
        labels: (N,) class indices, or (N, classes) of 0 and 1.
        val_fraction: fraction of the images that become the validation set.
        seed: seed of the random choice.

    Returns:
        Training indices and validation indices, each sorted.

    Raises:
        UserError: a class has too few images for the fraction.
    """
    from sklearn.model_selection import train_test_split

    classes = np.asarray(labels)
    try:
        train, val = train_test_split(
            np.arange(len(labels)),
            test_size=float(val_fraction),
            random_state=seed,
            stratify=classes if classes.ndim == 1 else None,
        )
    except ValueError as error:
        reason = str(error).partition(". ")[0].rstrip(".")  # Later sentences list every class.
        raise UserError(
            f"{len(labels)} images cannot be split with data.val_fraction={val_fraction}: {reason}. "
            "Provide a validation set next to the training set, or more images per class."
        ) from error
    return np.sort(train), np.sort(val)
