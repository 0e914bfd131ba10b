"""The LightningModule that trains and evaluates the network of any task."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from swin_lab.errors import UserError
from swin_lab.metadata import EMA_KEY, METADATA_KEY, NETWORK_PREFIX
from swin_lab.training.ema import EmaConfig, EmaModel
from swin_lab.training.optim import OptimizerConfig
from swin_lab.training.schedule import RunLength, Schedule
from swin_lab.training.task import Batch, Task

log = logging.getLogger("swin_lab.training")

VAL, VAL_EMA = "val", "val_ema"
"""Prefixes of the metrics of the trained weights, and of their moving average (EMA)."""

EMA_UPDATES_KEY = "ema_num_updates"
"""Key of the number of EMA updates in a checkpoint."""

DISTINCT_SEED = 1_000_003
"""A prime by which the seeds of different runs, epochs and batches differ."""


@dataclass(frozen=True)
class EvaluationResult:
    """Contains the results of an evaluation over all processes."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Full name, such as val/acc1 -> value."""
    num_images: int = 0
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name -> array, for the metrics of the trained weights that are arrays."""


class Engine(LightningModule):
    """Trains a network: optimizer, schedule, EMA, gradient clipping, metrics of a task, checkpoint metadata.

    Args:
        network: the network that the task has built around the model.
        task: loss, metrics and monitored metric.
        metadata: plain Python in every checkpoint, from which network and preprocessing can be rebuilt.
        optimizer: optimizer and its settings. If None, the run only evaluates.
        schedule: learning rate over the run. If None, the run only evaluates.
        ema: settings of a moving average of the weights, which is evaluated as well. If None, there is none.
        global_batch: images per optimizer update over all devices.
        seed: seed of random numbers on the device, such as those of drop path and mixing.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        metadata: dict[str, Any],
        *,
        optimizer: OptimizerConfig | None = None,
        schedule: Schedule | None = None,
        ema: EmaConfig | None = None,
        global_batch: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.metadata = metadata
        self.optimizer_config = optimizer
        self.schedule = schedule
        self.ema = EmaModel(ema, network) if ema is not None else None
        self.global_batch = global_batch
        self.seed = seed
        self.val_metrics = nn.ModuleDict({name: task.metrics() for name in ([VAL] if ema is None else [VAL, VAL_EMA])})
        self.train_loss = MeanMetric(nan_strategy="disable")  # A NaN in the loss must not be ignored.
        self.result = EvaluationResult()
        """Result of the last evaluation."""
        self.initial_metrics: dict[str, float] | None = None
        """Metrics of loaded weights before the first update. If None, they were not evaluated."""
        self._last_ema_step = 0

    @property
    def monitor(self) -> str:
        """Returns the full name of the metric that decides which checkpoint is the best: that of the EMA, if there is one."""
        return f"{VAL if self.ema is None else VAL_EMA}/{self.task.monitor.metric}"

    def on_fit_start(self) -> None:
        torch.manual_seed(self.seed + self.global_rank)  # Processes must drop different paths.

    def on_train_start(self) -> None:
        self._move_ema()
        self._last_ema_step = self.trainer.global_step

    def _move_ema(self) -> None:
        if self.ema is not None:
            self.ema.network.to(next(self.network.parameters()))  # moves to the device, and casts under bf16-true

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch_number = batch_idx * self.trainer.world_size + self.global_rank
        batch_seed = (self.seed * DISTINCT_SEED + self.current_epoch) * DISTINCT_SEED + batch_number
        loss = self.task.training_loss(self.network, batch, batch_seed)
        self.train_loss.update(loss.detach())
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/lr", max(group["lr"] for group in self.trainer.optimizers[0].param_groups))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = self.trainer.global_step
        if self.ema is not None and step != self._last_ema_step:  # global_step counts optimizer updates only.
            self._last_ema_step = step
            if step % self.ema.config.every == 0:
                self.ema.update(self.network)

    def on_train_epoch_end(self) -> None:
        loss = self.trainer.callback_metrics["train/loss_epoch"]
        if not torch.isfinite(loss):
            raise UserError(
                f"the training loss is {loss.item()} in epoch {self.current_epoch + 1}; "
                "lower optimizer.lr, lengthen schedule.warmup_epochs, or set precision=32-true"
            )

    def on_validation_epoch_start(self) -> None:
        self._move_ema()
        for metrics in self.val_metrics.values():
            metrics.reset()  # type: ignore[operator]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if len(batch[0]) == 0:  # data.on_error=skip has left out every image of the batch.
            return
        networks = {name: self._network_of(name) for name in self.val_metrics}
        outputs = {network: self.task.evaluation_output(network, batch) for network in dict.fromkeys(networks.values())}
        for name, network in networks.items():
            self.val_metrics[name].update(outputs[network], batch)  # type: ignore[operator]

    def _network_of(self, name: str) -> nn.Module:
        """Returns the network whose metrics have this prefix; before the first update of the EMA, the trained one for both."""
        return self.ema.network if name == VAL_EMA and self.ema and self.ema.num_updates else self.network

    def on_validation_epoch_end(self) -> None:
        # Metrics are computed here over all processes at once: all processes log the same value, and each image counts once.
        values: dict[str, float] = {}
        arrays: dict[str, np.ndarray] = {}
        num_images = 0
        for prefix, metrics in self.val_metrics.items():
            computed: dict[str, Tensor] = metrics.compute()  # type: ignore[operator]
            num_images = int(computed["images"])
            for name in self.task.metric_formats:
                if name in computed:
                    is_main = (prefix, name) == (VAL, self.task.monitor.metric)
                    self.log(f"{prefix}/{name}", computed[name], prog_bar=is_main)
                    values[f"{prefix}/{name}"] = float(computed[name])
            if prefix == VAL:
                arrays = {name: value.cpu().numpy() for name, value in computed.items() if value.ndim > 0}
        self.result = EvaluationResult(values, num_images, arrays)
        if self.trainer.sanity_checking:
            self._log_initial_metrics()

    def _log_initial_metrics(self) -> None:
        """Logs the metrics of loaded weights before training, as the official code does, so that wrong data is noticed."""
        self.initial_metrics = {name: value for name, value in self.result.metrics.items() if name.startswith(f"{VAL}/")}
        by_name = {name.removeprefix(f"{VAL}/"): value for name, value in self.initial_metrics.items()}
        formats = self.task.metric_formats
        texts = [formats[name].text(value) for name, value in by_name.items() if formats[name].in_epoch_line]
        log.info("initial    %s on %s images", ", ".join(texts), f"{self.result.num_images:,}")
        warning = self.task.judge_initial_weights(by_name)
        if warning is not None:
            log.warning("%s", warning)

    def configure_optimizers(self) -> Any:
        assert self.optimizer_config is not None
        assert self.schedule is not None
        schedule = self.schedule
        allow_fused = self.trainer.precision != "16-mixed"  # A fused step unscales fp16 gradients after clipping.
        optimizer = self.optimizer_config.build(self.network, self.global_batch, allow_fused)
        self.trainer.fit_loop.setup_data()  # A run that only max_steps ends has no number of batches before.
        if self.trainer.estimated_stepping_batches == float("inf"):
            raise UserError("the run has no end; set trainer.max_epochs or trainer.max_steps")
        steps_per_epoch = ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        length = RunLength(steps_per_epoch, int(self.trainer.estimated_stepping_batches))
        warmup = schedule.warmup_steps(length)
        if warmup >= length.total_steps:
            log.warning(
                "the warm-up takes %d updates and the run has %d: the peak learning rate is never reached; "
                "lower schedule.warmup_epochs",
                warmup,
                length.total_steps,
            )
        scheduler = LambdaLR(optimizer, lambda step: schedule.factor(step, length))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        # Lightning refuses to clip with a fused optimizer also under bf16, where gradients are not scaled; this clips itself.
        by_value = gradient_clip_algorithm == "value"
        limit = gradient_clip_val if gradient_clip_val and not by_value else float("inf")
        self.log("train/grad_norm", nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        if by_value and gradient_clip_val:
            nn.utils.clip_grad_value_(self.network.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[METADATA_KEY] = self.metadata
        if self.ema is not None:
            checkpoint[EMA_KEY] = {NETWORK_PREFIX + name: tensor for name, tensor in self.ema.state_dict().items()}
            checkpoint[EMA_UPDATES_KEY] = self.ema.num_updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.ema is not None and EMA_KEY in checkpoint:
            tensors = {name.removeprefix(NETWORK_PREFIX): tensor for name, tensor in checkpoint[EMA_KEY].items()}
            self.ema.load_state_dict(tensors, checkpoint[EMA_UPDATES_KEY])
