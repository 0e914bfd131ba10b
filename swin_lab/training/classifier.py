"""The training of an image classifier: loss, metrics, optimizer, and what its checkpoints say of themselves."""

import logging
from math import ceil
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, Metric, MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from swin_lab.card import CARD
from swin_lab.errors import UserError, is_number
from swin_lab.training.optim import AdamW
from swin_lab.training.schedule import Schedule

log = logging.getLogger("swin_lab.training")

MOST_CONFUSION_CLASSES = 2000
"""Beyond it the confusion matrix, classes squared, is not kept."""


class Classifier(LightningModule):
    """A network that learns to name pictures.

    Args:
        network: images (B, channels, height, width) -> logits (B, num_classes).
        num_classes: number of classes.
        card: plain Python that every checkpoint carries: all that is needed to rebuild network and preprocessing.
        optimizer: recipe of the optimizer; None if the run only evaluates.
        schedule: learning rate over the run; None likewise.
        global_batch: pictures per update, for the learning rate.
        label_smoothing: part of the target spread over all classes (training loss only).
        seed: of what is random on the device, such as drop path.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        card: dict[str, Any],
        *,
        optimizer: AdamW | None = None,
        schedule: Schedule | None = None,
        global_batch: int = 1,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(f"the data has {num_classes} class; a classifier needs pictures of two or more")
        if not is_number(label_smoothing) or not 0 <= label_smoothing < 1:
            raise UserError(
                f"label_smoothing={label_smoothing} is no part of a target; give a number from 0 up to, not including, 1"
            )
        self.network = network
        self.card = card
        self.optimizer_recipe = optimizer
        self.schedule = schedule
        self.global_batch = global_batch
        self.label_smoothing = label_smoothing
        self.seed = seed

        accuracies: dict[str, Metric | MetricCollection] = {
            "val/acc1": MulticlassAccuracy(num_classes, top_k=1, average="micro")
        }
        if num_classes > 5:
            accuracies["val/acc5"] = MulticlassAccuracy(num_classes, top_k=5, average="micro")
        self.val_accuracy = MetricCollection(accuracies, compute_groups=False)
        self.val_loss = MeanMetric(nan_strategy="disable")  # a loss that is no number must show
        self.confusion = MulticlassConfusionMatrix(num_classes) if num_classes <= MOST_CONFUSION_CLASSES else None
        self.val_images = SumMetric()
        self.train_loss = MeanMetric(nan_strategy="disable")

        self.metrics: dict[str, float] = {}
        """Of the last evaluation, over all processes."""
        self.images_evaluated = 0
        self.confusion_counts: np.ndarray | None = None
        """(classes, classes), [truth, prediction], of the last evaluation."""

    def on_fit_start(self) -> None:
        torch.manual_seed(self.seed + self.global_rank)  # after initialisation: processes drop different paths

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels, label_smoothing=self.label_smoothing)
        self.train_loss.update(loss.detach())
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def on_train_epoch_end(self) -> None:
        loss = self.trainer.callback_metrics["train/loss_epoch"]
        if not torch.isfinite(loss):
            raise UserError(
                f"the training loss is {loss.item()} in epoch {self.current_epoch + 1}; "
                "lower optimizer.lr, lengthen schedule.warmup_epochs, or set precision=32-true"
            )

    def on_validation_epoch_start(self) -> None:
        for metric in (self.val_loss, self.val_accuracy, self.val_images, self.confusion):
            if metric is not None:
                metric.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        if len(labels) == 0:  # not one picture of the batch could be read, and the run skips such pictures
            return
        logits = self.network(images).float()
        self.val_loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self.val_accuracy.update(logits, labels)
        self.val_images.update(len(labels))
        if self.confusion is not None:
            self.confusion.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        # computed here, over all processes at once: every process logs the same number, and each picture counts once
        values = {"val/loss": self.val_loss.compute(), **self.val_accuracy.compute()}
        for name, value in values.items():
            self.log(name, value, prog_bar=name == "val/acc1")
        self.metrics = {name: float(value) for name, value in values.items()}
        self.images_evaluated = int(self.val_images.compute())
        self.confusion_counts = self.confusion.compute().cpu().numpy() if self.confusion is not None else None

    def configure_optimizers(self) -> Any:
        assert self.optimizer_recipe is not None
        assert self.schedule is not None
        schedule = self.schedule
        fused = self.trainer.precision != "16-mixed"  # a fused step unscales fp16 gradients too late for clipping
        optimizer = self.optimizer_recipe.build(self.network, self.global_batch, fused)
        if self.trainer.estimated_stepping_batches == float("inf"):
            raise UserError("the run has no end; give trainer.max_epochs or trainer.max_steps")
        total = int(self.trainer.estimated_stepping_batches)
        per_epoch = ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        warmup = round(schedule.warmup_epochs * per_epoch)
        if warmup >= total:
            log.warning("warm-up takes %d updates and the run has %d: the full learning rate is never reached", warmup, total)
        scheduler = LambdaLR(optimizer, lambda update: schedule.factor(update, warmup, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        # by hand, because Lightning refuses to clip for a fused optimizer under bf16 as well, where nothing is scaled
        by_value = gradient_clip_algorithm == "value"
        limit = gradient_clip_val if gradient_clip_val and not by_value else float("inf")
        self.log("train/grad_norm", nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        if by_value and gradient_clip_val:
            nn.utils.clip_grad_value_(self.network.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CARD] = self.card
