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
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from swin_lab.card import CARD, EMA, NETWORK
from swin_lab.errors import UserError, is_number
from swin_lab.training.ema import Average, Ema
from swin_lab.training.metrics import Scores
from swin_lab.training.mixing import Mixer
from swin_lab.training.optim import AdamW
from swin_lab.training.schedule import Schedule, Span

log = logging.getLogger("swin_lab.training")

RAW, AVERAGED = "val", "val_ema"
"""What metrics are named after: the weights that learn, and their moving average."""

AVERAGINGS = "ema_averagings"
"""Key of a checkpoint: how often the weights have been averaged."""

MAX_CONFUSION_CLASSES = 2000
"""Beyond it the confusion matrix, classes squared, is not kept."""


class Classifier(LightningModule):
    """A network that learns to name images.

    Args:
        network: images (B, channels, height, width) -> logits (B, num_classes).
        num_classes: number of classes.
        card: plain Python that every checkpoint carries: all that is needed to rebuild network and preprocessing.
        optimizer: recipe of the optimizer; None if the run only evaluates.
        schedule: learning rate over the run; None likewise.
        mixing: how images and labels of a training batch are mixed; None: not at all.
        ema: a moving average of the weights that is evaluated as well; None for none.
        global_batch: images per update, for the learning rate.
        label_smoothing: part of the target spread over all classes (training loss only).
        seed: of what is random on the device, such as drop path, and of mixing.
        flip: whether an evaluation averages the logits of an image and of its mirror image.
        real_labels: (images of the evaluation, most) all right classes of every image, filled up with -1; None: one each.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        card: dict[str, Any],
        *,
        optimizer: AdamW | None = None,
        schedule: Schedule | None = None,
        mixing: Mixer | None = None,
        ema: Ema | None = None,
        global_batch: int = 1,
        label_smoothing: float = 0.0,
        seed: int = 0,
        flip: bool = False,
        real_labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(f"the data has {num_classes} class; a classifier needs images of two or more")
        if not is_number(label_smoothing) or not 0 <= label_smoothing < 1:
            raise UserError(
                f"label_smoothing={label_smoothing} is no part of a target; give a number from 0 up to, not including, 1"
            )
        self.network = network
        self.num_classes = num_classes
        self.card = card
        self.optimizer_recipe = optimizer
        self.schedule = schedule
        self.mixing = mixing
        self.average = Average(ema, network) if ema is not None else None
        self.global_batch = global_batch
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.flip = flip
        self.real_labels = real_labels

        names = [RAW] if ema is None else [RAW, AVERAGED]
        self.scores = nn.ModuleDict({name: Scores(num_classes, real_labels is not None) for name in names})
        self.confusion = MulticlassConfusionMatrix(num_classes) if num_classes <= MAX_CONFUSION_CLASSES else None
        self.train_loss = MeanMetric(nan_strategy="disable")  # a loss that is no number must show

        self.metrics: dict[str, float] = {}
        """Of the last evaluation, over all processes."""
        self.metrics_at_start: dict[str, float] | None = None
        """Of the evaluation before the first update; None if there was none."""
        self.images_evaluated = 0
        self.confusion_counts: np.ndarray | None = None
        """(classes, classes), [truth, prediction], of the last evaluation."""
        self._averaged_at = 0

    def on_fit_start(self) -> None:
        torch.manual_seed(self.seed + self.global_rank)  # after initialisation: processes drop different paths

    def on_train_start(self) -> None:
        self._place_average()
        self._averaged_at = self.trainer.global_step

    def _place_average(self) -> None:
        if self.average is not None:
            self.average.network.to(next(self.network.parameters()))  # its device, and its type under bf16-true

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        images, labels = batch[:2]
        loss = self._training_loss(images, labels, batch_idx)
        self.train_loss.update(loss.detach())
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/lr", max(group["lr"] for group in self.trainer.optimizers[0].param_groups))
        return loss

    def _training_loss(self, images: Tensor, labels: Tensor, batch_idx: int) -> Tensor:
        if self.mixing is None:
            return F.cross_entropy(self.network(images), labels, label_smoothing=self.label_smoothing)
        batch = batch_idx * self.trainer.world_size + self.global_rank
        draw = (self.seed * 1_000_003 + self.current_epoch) * 1_000_003 + batch
        images, targets = self.mixing.mix(images, labels, self.num_classes, self.label_smoothing, draw)
        return F.cross_entropy(self.network(images), targets)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        update = self.trainer.global_step
        if self.average is not None and update != self._averaged_at:  # the same where gradients are still being accumulated
            self._averaged_at = update
            if update % self.average.recipe.every == 0:
                self.average.follow(self.network)

    def on_train_epoch_end(self) -> None:
        loss = self.trainer.callback_metrics["train/loss_epoch"]
        if not torch.isfinite(loss):
            raise UserError(
                f"the training loss is {loss.item()} in epoch {self.current_epoch + 1}; "
                "lower optimizer.lr, lengthen schedule.warmup_epochs, or set precision=32-true"
            )

    def on_validation_epoch_start(self) -> None:
        self._place_average()
        for metric in (*self.scores.values(), self.confusion):
            if metric is not None:
                metric.reset()  # type: ignore[operator]

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        images, labels, *numbers = batch
        if len(labels) == 0:  # not one image of the batch could be read, and the run skips such images
            return
        answers = None
        if self.real_labels is not None:
            answers = self.real_labels[numbers[0].cpu()].to(labels.device)
        networks = {name: self._weights_of(name) for name in self.scores}
        logits = {network: self._logits(network, images) for network in set(networks.values())}
        for name, network in networks.items():
            self.scores[name].update(logits[network], labels, answers)  # type: ignore[operator]
        if self.confusion is not None:
            self.confusion.update(logits[self.network], labels)

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """(B, num_classes) of float32."""
        logits: Tensor = network(images).float()
        return (logits + network(images.flip(-1)).float()) / 2 if self.flip else logits

    def _weights_of(self, name: str) -> nn.Module:
        """The network that metrics of this name are of; until the first averaging that is the one that learns."""
        return self.average.network if name == AVERAGED and self.average and self.average.averagings else self.network

    def on_validation_epoch_end(self) -> None:
        # computed here, over all processes at once: every process logs the same number, and each image counts once
        self.metrics = {}
        for name, scores in self.scores.items():
            results = scores.compute()  # type: ignore[operator]
            self.images_evaluated = int(results.pop("images"))
            for metric, value in results.items():
                self.log(f"{name}/{metric}", value, prog_bar=(name, metric) == (RAW, "acc1"))
                self.metrics[f"{name}/{metric}"] = float(value)
        self.confusion_counts = self.confusion.compute().cpu().numpy() if self.confusion is not None else None
        if self.trainer.sanity_checking:
            self._judge_start()

    def _judge_start(self) -> None:
        """Says how good loaded weights are before they learn, as the official code does: it shows wrong data in a minute."""
        self.metrics_at_start = {name: value for name, value in self.metrics.items() if name.startswith(f"{RAW}/")}
        accuracy, chance = self.metrics["val/acc1"], 1 / self.num_classes
        shown = ("at start   top-1 %.2f%%, loss %.4f on %s images", accuracy * 100, self.metrics["val/loss"])
        log.info(*shown, f"{self.images_evaluated:,}")
        if accuracy < chance + 0.1 * (1 - chance):
            log.warning(
                "that is near chance (%.2f%%) for weights that should know these classes: "
                "compare the class order of data and weights, and mean, std and interpolation of the data",
                chance * 100,
            )

    def configure_optimizers(self) -> Any:
        assert self.optimizer_recipe is not None
        assert self.schedule is not None
        schedule = self.schedule
        fused = self.trainer.precision != "16-mixed"  # a fused step unscales fp16 gradients too late for clipping
        optimizer = self.optimizer_recipe.build(self.network, self.global_batch, fused)
        if self.trainer.estimated_stepping_batches == float("inf"):
            raise UserError("the run has no end; give trainer.max_epochs or trainer.max_steps")
        per_epoch = ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        span = Span(per_epoch, int(self.trainer.estimated_stepping_batches))
        warmup = schedule.warmup_updates(span)
        if warmup >= span.total:
            log.warning(
                "warm-up takes %d updates and the run has %d: the full learning rate is never reached", warmup, span.total
            )
        scheduler = LambdaLR(optimizer, lambda update: schedule.factor(update, span))
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
        if self.average is not None:
            checkpoint[EMA] = {NETWORK + name: tensor for name, tensor in self.average.state().items()}
            checkpoint[AVERAGINGS] = self.average.averagings

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None and EMA in checkpoint:
            tensors = {name.removeprefix(NETWORK): tensor for name, tensor in checkpoint[EMA].items()}
            self.average.restore(tensors, checkpoint[AVERAGINGS])
