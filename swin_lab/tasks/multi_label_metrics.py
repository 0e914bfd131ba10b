"""Metrics of several labels per image: average precision and F1 per class, by torchmetrics, over all processes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_precision_recall_curve,
    multilabel_f1_score,
)
from torchmetrics.utilities import dim_zero_cat

from swin_lab.tasks.metrics import SUM_DTYPE

HALF = 0.5
PER_CLASS = ("ap", "f1_half", "f1_at_threshold", "thresholds", "positives")
"""Rows of `per_class`: average precision, F1 at 0.5 and at the thresholds, the thresholds, and the images of the class."""


class MultiLabelMetrics(Metric):
    """Loss, and average precision and F1 of each class; classes that no image has are left out of the means.

    Args:
        num_classes: number of classes.
        thresholds: (C,) probabilities above which an image has a label. If None, those of the best F1 on these images.
    """

    loss_sum: Tensor
    images: Tensor
    logits: list[Tensor]
    targets: list[Tensor]

    def __init__(self, num_classes: int, thresholds: Sequence[float] | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.thresholds = thresholds
        self.add_state("loss_sum", torch.tensor(0, dtype=SUM_DTYPE), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, batch: tuple[Tensor, ...]) -> None:
        """Adds a batch.

        Args:
            logits: (B, C).
            batch: images, and labels (B, C) of 0 and 1.
        """
        logits, targets = logits.float(), batch[1]
        losses = F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").mean(dim=1)
        # An infinite logit on the right side would leave the loss finite.
        self.loss_sum += losses.to(SUM_DTYPE).where(torch.isfinite(logits).all(dim=1), torch.nan).sum()
        self.images += len(targets)
        self.logits.append(logits)
        self.targets.append(targets.to(torch.uint8))

    def sync(
        self,
        dist_sync_fn: Callable | None = None,
        process_group: Any = None,
        should_sync: bool = True,
        distributed_available: Callable | None = None,
    ) -> None:
        """Exchanges the states, also if this process has no images: tensors of all processes need the same dimensions."""
        if not self.logits:
            device = self.images.device
            self.logits.append(torch.zeros(0, self.num_classes, device=device))
            self.targets.append(torch.zeros(0, self.num_classes, dtype=torch.uint8, device=device))
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def compute(self) -> dict[str, Tensor]:
        """Returns the number of images, loss, means over classes, and `per_class` (5, C), the values that PER_CLASS names.

        `f1` is the mean at probabilities of 0.5, `f1_tuned` that at the thresholds.
        """
        values = {"loss": (self.loss_sum / self.images).float(), "images": self.images}
        if not self.images:
            return values
        probabilities_NC, targets_NC = dim_zero_cat(self.logits).sigmoid(), dim_zero_cat(self.targets).long()
        positives = targets_NC.sum(dim=0)
        present = torch.nonzero(positives)[:, 0].tolist()
        if self.thresholds is None:
            thresholds = best_thresholds(probabilities_NC, targets_NC)
        else:
            thresholds = torch.tensor(self.thresholds, device=probabilities_NC.device)
        precisions = probabilities_NC.new_zeros(self.num_classes)
        for c in present:
            precisions[c] = binary_average_precision(probabilities_NC[:, c], targets_NC[:, c], validate_args=False)
        at_half = f1_per_class(probabilities_NC, targets_NC, torch.full_like(thresholds, HALF))
        tuned = f1_per_class(probabilities_NC, targets_NC, thresholds)
        means = {"map": precisions, "f1": at_half, "f1_tuned": tuned}
        values |= {name: per_class[present].mean() if present else per_class.sum() for name, per_class in means.items()}
        # One array, as torchmetrics makes a scalar of an array with a single number.
        return values | {"per_class": torch.stack([precisions, at_half, tuned, thresholds, positives.float()])}


def f1_per_class(probabilities_NC: Tensor, targets_NC: Tensor, thresholds_C: Tensor) -> Tensor:
    """Returns F1 of each class, (C,), of labels whose probability is above the threshold; 0 without true and found labels."""
    found_NC = (probabilities_NC > thresholds_C).long()
    scores: Tensor = multilabel_f1_score(found_NC, targets_NC, targets_NC.shape[1], average="none", validate_args=False)
    return scores.reshape(-1)  # torchmetrics gives a scalar for one class.


def best_thresholds(probabilities_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Returns for each class the threshold of the highest F1, (C,) in float32; 0.5 for a class that no image has.

    It lies in the middle between two neighbouring probabilities, of the lowest that counts and the next lower one, so that it
    also separates images that were computed with rounding errors.
    """
    thresholds = probabilities_NC.new_full((targets_NC.shape[1],), HALF)
    for c in torch.nonzero(targets_NC.sum(dim=0))[:, 0].tolist():
        column_N = probabilities_NC[:, c]
        precision, recall, levels = binary_precision_recall_curve(column_N, targets_NC[:, c], validate_args=False)
        f1 = 2 * precision * recall / (precision + recall).clamp(min=torch.finfo(precision.dtype).tiny)
        lowest = levels[f1[: len(levels)].argmax()]  # The last point of the curve has no threshold.
        below = column_N[column_N < lowest]
        next_lower = below.max() if len(below) else torch.zeros_like(lowest)
        middle = (lowest + next_lower) / 2
        # Between two adjacent numbers there is no other: their middle is rounded to one of them.
        thresholds[c] = middle if middle < lowest else next_lower
    return thresholds
