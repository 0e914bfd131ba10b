"""What an evaluation counts: every image once, as whole numbers, added up over all processes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

SUM_TYPE = torch.float32 if torch.backends.mps.is_available() else torch.float64  # Apple's GPUs have no float64


class Scores(Metric):
    """Loss and accuracies of one network's answers.

    Args:
        num_classes: number of classes; up to five there is no top-5.
        real: whether the images have several right answers as well (ReaL, arXiv 2006.07159).
    """

    loss_sum: Tensor
    images: Tensor
    correct: Tensor
    real_images: Tensor
    real_correct: Tensor

    def __init__(self, num_classes: int, real: bool = False) -> None:
        super().__init__()
        self.tops = ("acc1", "acc5") if num_classes > 5 else ("acc1",)
        self.real = real
        self.add_state("loss_sum", torch.tensor(0, dtype=SUM_TYPE), dist_reduce_fx="sum")
        for name in ("images", "real_images"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")
        for name in ("correct", "real_correct"):
            self.add_state(name, torch.zeros(len(self.tops), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor, answers: Tensor | None = None) -> None:
        """Counts a batch.

        Args:
            logits: (B, num_classes).
            labels: (B,).
            answers: (B, most) all right classes of each image, filled up with -1; an image without any is left out of ReaL.
        """
        self.loss_sum += F.cross_entropy(logits.float(), labels, reduction="none").to(SUM_TYPE).sum()
        self.images += len(labels)
        answered = [logits.argmax(dim=1, keepdim=True)]  # (B, 1); not topk, whose choice among equal logits depends on how many
        if "acc5" in self.tops:
            answered.append(logits.topk(5, dim=1).indices)
        self.correct += torch.stack([(best == labels[:, None]).any(dim=1).sum() for best in answered])
        if self.real:
            assert answers is not None
            self.real_images += (answers >= 0).any(dim=1).sum()
            hits = [(best[:, :, None] == answers[:, None, :]).flatten(1).any(dim=1).sum() for best in answered]
            self.real_correct += torch.stack(hits)

    def compute(self) -> dict[str, Any]:
        """Loss, accuracies (0 to 1) and the number of images by name."""
        values = {"loss": self.loss_sum / self.images}
        values |= dict(zip(self.tops, self.correct / self.images, strict=True))
        if self.real:
            values |= {
                f"real_{name}": value for name, value in zip(self.tops, self.real_correct / self.real_images, strict=True)
            }
        return {name: value.float() for name, value in values.items()} | {"images": self.images}
