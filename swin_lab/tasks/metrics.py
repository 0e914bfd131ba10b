"""Metrics of a classification: integer counts, in which every image counts once, summed over all processes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix

SUM_DTYPE = torch.float32 if torch.backends.mps.is_available() else torch.float64  # Apple's GPUs have no float64

MAX_CONFUSION_CLASSES = 2000
"""Number of classes above which no confusion matrix is computed; its size is the square of that number."""


class ClassificationMetrics(Metric):
    """Loss, accuracies and confusion matrix of one network.

    Args:
        num_classes: number of classes; top-5 accuracy exists for six and more.
        reassessed_labels: (N, K) all valid classes of every validation image, padded with -1 (ReaL, arXiv 2006.07159). If None,
            there are no ReaL metrics.
    """

    loss_sum: Tensor
    images: Tensor
    correct: Tensor
    real_images: Tensor
    real_correct: Tensor
    confusion: Tensor

    def __init__(self, num_classes: int, reassessed_labels: Tensor | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.topk = ("acc1", "acc5") if num_classes > 5 else ("acc1",)
        self.reassessed_labels = reassessed_labels
        side = num_classes if num_classes <= MAX_CONFUSION_CLASSES else 0
        self.add_state("loss_sum", torch.tensor(0, dtype=SUM_DTYPE), dist_reduce_fx="sum")
        for name in ("images", "real_images"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")
        for name in ("correct", "real_correct"):
            self.add_state(name, torch.zeros(len(self.topk), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("confusion", torch.zeros(side, side, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, batch: tuple[Tensor, ...]) -> None:
        """Counts a batch.

        Args:
            logits: (B, num_classes).
            batch: images, labels (B,), and, for ReaL metrics, the indices (B,) of the images in the validation set.
        """
        labels = batch[1]
        losses = F.cross_entropy(logits.float(), labels, reduction="none").to(SUM_DTYPE)  # (B,)
        # An infinite logit of a wrong class would leave the loss finite.
        self.loss_sum += losses.where(torch.isfinite(logits).all(dim=1), torch.nan).sum()
        self.images += len(labels)
        # Top-1 is the argmax, because the choice of topk among equal logits depends on how many are requested.
        predicted = [logits.argmax(dim=1, keepdim=True)]  # (B, 1)
        if "acc5" in self.topk:
            predicted.append(logits.topk(5, dim=1).indices)
        self.correct += torch.stack([(classes == labels[:, None]).any(dim=1).sum() for classes in predicted])
        if self.confusion.numel():
            counts = multiclass_confusion_matrix(predicted[0][:, 0], labels, self.num_classes, validate_args=False)
            self.confusion += counts
        if self.reassessed_labels is not None:
            valid_labels = self.reassessed_labels[batch[2].cpu()].to(labels.device)  # (B, K)
            self.real_images += (valid_labels >= 0).any(dim=1).sum()
            hits = [(classes[:, :, None] == valid_labels[:, None, :]).flatten(1).any(dim=1).sum() for classes in predicted]
            self.real_correct += torch.stack(hits)

    def compute(self) -> dict[str, Any]:
        """Returns the number of images, loss and accuracies (0 to 1) by name, and the confusion matrix [truth, prediction]."""
        values = {"loss": self.loss_sum / self.images}
        values |= dict(zip(self.topk, self.correct / self.images, strict=True))
        if self.reassessed_labels is not None and self.real_images > 0:
            accuracies = self.real_correct / self.real_images
            values |= {f"real_{name}": value for name, value in zip(self.topk, accuracies, strict=True)}
        arrays = {"confusion": self.confusion} if self.confusion.numel() else {}
        return {name: value.float() for name, value in values.items()} | {"images": self.images} | arrays
