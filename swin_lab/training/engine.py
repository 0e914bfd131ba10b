"""The LightningModule that trains and evaluates the network of any task."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from math import ceil, isfinite
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from swin_lab.errors import UserError
from swin_lab.metadata import EMA_KEY, METADATA_KEY, NETWORK_PREFIX
from swin_lab.training.ema import EmaConfig, EmaModel
from swin_lab.training.evaluation import FINAL, VAL, VAL_EMA, EvaluationResult, monitored_metric
from swin_lab.training.nonfinite import NonFiniteConfig, NonFiniteGuard
from swin_lab.training.optim import OptimizerConfig
from swin_lab.training.optimizer_settings import OptimizerSettings
from swin_lab.training.position import Position
from swin_lab.training.schedule import RunLength, Schedule
from swin_lab.training.sharding import whole
from swin_lab.training.task import Batch, Task

log = logging.getLogger("swin_lab.training")

EMA_UPDATES_KEY = "ema_num_updates"
"""Key of the number of EMA updates in a checkpoint."""

RUN_STATE_KEY = "run_state"
"""Key of what a resumed run needs besides the state of weights, optimizer, schedule, loops and callbacks."""

DISTINCT_SEED = 1_000_003
"""A prime by which the seeds of different runs, epochs and batches differ."""


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
        compile_network: has a network compiled in place; called with the trained network and with the averaged one. If None,
            they are not compiled.
        constant_weights: returns a context in which a network is evaluated, whose weights do not change there. If None, there
            is none.
        nonfinite: what happens at an update whose loss or gradient norm is NaN or infinite. If None, it ends the run.
        shard: distributes a network over the processes, once they are connected. If None, every process has all of it.
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
        compile_network: Callable[[nn.Module], None] | None = None,
        constant_weights: Callable[[nn.Module], AbstractContextManager[None]] | None = None,
        nonfinite: NonFiniteConfig | None = None,
        shard: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.metadata = metadata
        self.optimizer_config = optimizer
        self.schedule = schedule
        self.ema = EmaModel(ema, network) if ema is not None else None
        if compile_network is not None:
            compile_network(network)
            if self.ema is not None:
                compile_network(self.ema.network)
        self.constant_weights = constant_weights
        self.shard = shard
        self._evaluation = ExitStack()
        self.global_batch = global_batch
        self.seed = seed
        self.val_metrics = nn.ModuleDict({name: task.metrics() for name in ([VAL] if ema is None else [VAL, VAL_EMA])})
        self.train_loss = MeanMetric(nan_strategy="disable")  # A NaN in the loss must not be ignored.
        self.result = EvaluationResult()
        """Result of the last evaluation."""
        self._evaluated_metadata = task.metadata_of({})
        self.initial_metrics: dict[str, float] | None = None
        """Metrics of loaded weights before the first update. If None, they were not evaluated."""
        self._last_ema_step = 0
        self.resumed: Position | None = None
        """Where the run that a checkpoint was taken from goes on. If None, this run starts at its beginning."""
        self._evaluated: tuple[int, int] | None = None
        self._loaded_epoch: int | None = None
        self.guard = NonFiniteGuard(nonfinite or NonFiniteConfig())
        self.settings = OptimizerSettings()
        self._optimizer_is_running = False

    @property
    def monitor(self) -> str:
        """Returns the full name of the metric that decides which checkpoint is the best: that of the EMA, if there is one."""
        return monitored_metric(self.task, self.ema is not None)

    @property
    def monitored(self) -> str:
        """Returns the prefix of that metric."""
        return self.monitor.partition("/")[0]

    def configure_model(self) -> None:
        if self.shard is not None:
            self.shard(self.network)
            if self.ema is not None:
                self.ema.shard(self.shard)

    def on_train_start(self) -> None:
        if self.resumed is not None and self.resumed.batches == 0:  # Lightning would go on at the end of the epoch before.
            self.trainer.fit_loop.epoch_loop.restarting = False
        self.settings.apply_changes(self.trainer)
        self._move_ema()
        # Lightning casts all modules under bf16-true and 16-true; a sum of losses in half precision soon stops growing.
        self.train_loss.set_dtype(torch.promote_types(self.train_loss.dtype, torch.float32))
        self._last_ema_step = self.trainer.global_step
        self.guard.start(self.network)

    def _move_ema(self) -> None:
        if self.ema is not None:
            self.ema.move(next(self.network.parameters()))
            self.ema.round_weights()

    def batch_seed(self, batch_idx: int) -> int:
        """Returns the seed of all random numbers on the device for a batch of the current epoch."""
        batch_number = batch_idx * self.trainer.world_size + self.global_rank
        return ((self.seed * DISTINCT_SEED + self.current_epoch) * DISTINCT_SEED + batch_number) % 2**63

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch_seed = self.batch_seed(batch_idx)
        torch.manual_seed(batch_seed)  # Drop path depends on the update, not on what was computed before it.
        self.guard.take(batch, batch_seed, int(self.trainer.accumulate_grad_batches))
        loss = self.task.training_loss(self.network, batch, batch_seed)
        self._check_loss(loss)
        bad = self.guard.take_loss(loss)
        if self.guard.config.policy == "skip":  # The mean leaves such losses out; MeanMetric takes no weights without checks.
            self.train_loss.update(loss.detach().where(~bad, 0.0))
            self.train_loss.weight -= bad.to(self.train_loss.weight)
        else:
            self.train_loss.update(loss.detach())
        self.log("train/loss", loss.detach())  # With prog_bar, Lightning would wait for the device in every step.
        lr = max(group["lr"] for group in self.trainer.optimizers[0].param_groups)
        self.log("train/lr", torch.tensor(lr, dtype=torch.float32, device="cpu"))  # A copy to a GPU would wait for it.
        return loss

    def _check_loss(self, loss: Tensor) -> None:
        """Raises UserError unless a loss is a scalar with a gradient."""
        if not isinstance(loss, Tensor) or loss.ndim > 0 or not loss.requires_grad:
            found = f"a {type(loss).__name__}"
            if isinstance(loss, Tensor):
                found = f"a tensor of shape {list(loss.shape)} with{'' if loss.requires_grad else 'out'} a gradient"
            name = type(self.task).__name__
            raise UserError(f"{name}.training_loss returned {found}; it must return a scalar tensor with a gradient")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = self.trainer.global_step
        if self.ema is not None and step != self._last_ema_step:  # global_step counts optimizer updates only.
            self._last_ema_step = step
            if step % self.ema.config.every == 0 and self.guard.found is None:
                self.ema.update(self.network)

    def on_train_epoch_end(self) -> None:
        self.guard.settle(self.trainer)
        self.log("train/loss_epoch", self.epoch_loss())
        self.train_loss.reset()

    def epoch_loss(self) -> Tensor:
        """Returns the mean training loss of the current epoch so far, over all processes."""
        loss: Tensor = self.train_loss.compute()
        return loss

    @property
    def is_training(self) -> bool:
        """Returns whether the run is between its first update and its last one."""
        return self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking

    def on_validation_epoch_start(self) -> None:
        if self.is_training:
            self.guard.settle(self.trainer)
        self._move_ema()
        self._evaluation.close()  # An error has left the evaluation before this one.
        if self.constant_weights is not None:
            for network in dict.fromkeys(map(self._network_of, self.val_metrics)):  # in the same order in every process
                self._evaluation.enter_context(self.constant_weights(network))
        # New metrics, because Lightning casts the states of the first ones under bf16-true and 16-true.
        self.val_metrics = nn.ModuleDict({name: self.task.metrics() for name in self.val_metrics}).to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any] | None:
        if len(batch[0]) == 0:  # data.on_error=skip has left out every image of the batch.
            return None
        networks = {name: self._network_of(name) for name in self.val_metrics}
        outputs = {network: self.task.evaluation_output(network, batch) for network in dict.fromkeys(networks.values())}
        for name, network in networks.items():
            self.val_metrics[name].update(outputs[network], batch)  # type: ignore[operator]
        return {name: outputs[network] for name, network in networks.items()}

    def _network_of(self, name: str) -> nn.Module:
        """Returns the network whose metrics have this prefix; before the first update of the EMA, the trained one for both."""
        return self.ema.network if name == VAL_EMA and self.ema and self.ema.num_updates else self.network

    def on_validation_epoch_end(self) -> None:
        self._evaluation.close()
        # Metrics are computed here over all processes at once: all processes log the same value, and each image counts once.
        values: dict[str, float] = {}
        arrays: dict[str, np.ndarray] = {}
        num_images = 0
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        for prefix, metrics in self.val_metrics.items():
            computed: dict[str, Tensor] = metrics.compute()  # type: ignore[operator]
            num_images = int(computed["images"])
            for name in self.task.metric_formats:
                if name in computed:
                    is_main = (prefix, name) == (VAL, self.task.monitor.metric)
                    self.log(f"{prefix if fitting else FINAL[prefix]}/{name}", computed[name], prog_bar=is_main)
                    values[f"{prefix}/{name}"] = float(computed[name])
            if prefix == self.monitored:
                arrays = {name: value.cpu().numpy() for name, value in computed.items() if value.ndim > 0}
        self._check_metrics(values, num_images)
        self._evaluated_metadata = self.task.metadata_of(arrays)
        if self.is_training:
            place = self.position
            self._evaluated = place.epoch, place.batches
        epoch = self.current_epoch + 1 if self.is_training else self._loaded_epoch
        self.result = EvaluationResult(values, num_images, arrays, epoch)
        if self.trainer.sanity_checking:
            self._log_initial_metrics()

    def _check_metrics(self, values: Mapping[str, float], num_images: int) -> None:
        """Raises UserError if no image was evaluated, or if a metric is NaN or infinite."""
        if num_images == 0:
            raise UserError("no image was evaluated: none of the validation images can be read; data.on_error=raise shows why")
        invalid = [f"{name}={value}" for name, value in values.items() if not isfinite(value)]
        if invalid:
            advice = "lower optimizer.lr, or set precision=32-true" if self.is_training else "set precision=32-true"
            raise UserError(
                f"the evaluation of {num_images:,} images ended with {', '.join(invalid)}: "
                f"weights, images or outputs are NaN or infinite\nIf weights and images are finite, {advice}"
            )

    def _log_initial_metrics(self) -> None:
        """Logs the metrics of loaded weights before training, as the official code does, so that wrong data is noticed."""
        self.initial_metrics = {name: value for name, value in self.result.metrics.items() if name.startswith(f"{VAL}/")}
        by_name = {name.removeprefix(f"{VAL}/"): value for name, value in self.initial_metrics.items()}
        formats = self.task.metric_formats
        texts = [formats[name].text(value) for name, value in by_name.items() if formats[name].in_epoch_line]
        log.info("initial    %s on %s images", ", ".join(texts), f"{self.result.num_images:,}")
        warning = self.task.judge_initial_weights(by_name, self.result.num_images)
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
        self.settings.note(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        assert optimizer_closure is not None

        def closure() -> Any:
            self._optimizer_is_running = False  # until configure_gradient_clipping, which follows the backward pass
            return optimizer_closure()

        self._optimizer_is_running = True
        try:
            super().optimizer_step(epoch, batch_idx, optimizer, closure)
        except (UserError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # Optimizers of any library raise anything if a setting does not suit device or gradients.
            if not self._optimizer_is_running or self.trainer.global_step > 0 or "DataLoader worker" in str(error):
                raise
            kind = type(self.trainer.optimizers[0])  # Lightning wraps the argument.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"optimizer._target_={kind.__module__}.{kind.__qualname__} fails in the first update: {reason}\n"
                "Change its settings, or choose another optimizer"
            ) from error

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        # Lightning refuses to clip with a fused optimizer also under bf16, where gradients are not scaled; this clips itself.
        by_value = gradient_clip_algorithm == "value"
        limit = gradient_clip_val if gradient_clip_val and not by_value else float("inf")
        norm = whole(nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        self.log("train/grad_norm", norm)
        if by_value and gradient_clip_val:
            nn.utils.clip_grad_value_(self.network.parameters(), gradient_clip_val)
        self.guard.judge(self.trainer, norm)
        self._optimizer_is_running = True

    @property
    def position(self) -> Position:
        """The place where the training is, between two updates."""
        return Position.of(self.trainer, self._evaluated)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.settle(self.trainer)
        checkpoint[METADATA_KEY] = self.metadata | self._evaluated_metadata
        if self.ema is not None:
            checkpoint[EMA_KEY] = {NETWORK_PREFIX + name: tensor for name, tensor in self.ema.state_dict().items()}
            checkpoint[EMA_UPDATES_KEY] = self.ema.num_updates
        sums, result = torch.stack([self.train_loss.mean_value, self.train_loss.weight]), self.result
        gathered = self.all_gather(sums)
        assert isinstance(gathered, Tensor)
        checkpoint[RUN_STATE_KEY] = {
            "position": self.position.as_dict(),
            "loss_sums": gathered.reshape(-1, 2),  # one row per process: the order of a sum changes its last digit
            "skipped_updates": self.guard.skipped,
            "optimizer_settings": self.settings.configured,
            "initial_metrics": self.initial_metrics,
            "evaluated_metadata": self._evaluated_metadata,
            "result": {"metrics": dict(result.metrics), "num_images": result.num_images, "epoch": result.epoch},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.ema is not None and EMA_KEY in checkpoint:
            tensors = {name.removeprefix(NETWORK_PREFIX): tensor for name, tensor in checkpoint[EMA_KEY].items()}
            self.ema.load_state_dict(tensors, checkpoint[EMA_UPDATES_KEY])
        state = checkpoint[RUN_STATE_KEY]
        position = Position(**state["position"])
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._loaded_epoch = position.epoch + (position.batches > 0)
            return
        self.resumed = position
        accumulate = int(self.trainer.accumulate_grad_batches)
        checkpoint["loops"]["fit_loop"] = position.loops(checkpoint["loops"]["fit_loop"], accumulate)
        if position.evaluation == "done":
            self._evaluated = position.epoch, position.batches_with(accumulate)
        self._restore_loss(state["loss_sums"])
        self.guard.skipped = state["skipped_updates"]
        self.settings.resumed = state["optimizer_settings"]
        self.initial_metrics = state["initial_metrics"]
        self.result = EvaluationResult(**state["result"])
        self._evaluated_metadata = state.get("evaluated_metadata", {})  # Older runs have none.

    def _restore_loss(self, sums: Tensor) -> None:
        """Restores the sum of the losses of an unfinished epoch; with another number of processes, the first one takes all."""
        if len(sums) == self.trainer.world_size:
            own = sums[self.global_rank]
        else:
            own = sums.sum(0) if self.global_rank == 0 else torch.zeros(2)
        # Under fsdp, a checkpoint is read after the network was moved to its device.
        self.train_loss.mean_value, self.train_loss.weight = own.to(self.train_loss.mean_value.device, copy=True).unbind()
        self.train_loss._update_count = 1
