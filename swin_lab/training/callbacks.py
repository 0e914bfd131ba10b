"""Callbacks that log the progress of a run."""

import logging
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from swin_lab.training.engine import Engine
from swin_lab.training.evaluation import VAL, VAL_EMA

log = logging.getLogger("swin_lab.training")

BATCHES_BEFORE_ADVICE = 100
SECONDS_BETWEEN_LINES = 30.0
ADVICE_THRESHOLD = 0.3
"""Share of the training time below which more workers bring little."""


class EpochSummary(Callback):
    """Logs one line per epoch and measures the training speed.

    Args:
        images_per_batch: images of one forward pass over all processes.
    """

    def __init__(self, images_per_batch: int) -> None:
        self.images_per_batch = images_per_batch
        self.speeds: list[float] = []
        self._epoch_started_at = 0.0
        self._fit_started_at = 0.0
        self._first_epoch = 0
        self._batches = 0
        self._evaluated = False

    @property
    def images_per_second(self) -> float | None:
        """Returns the training speed without evaluation, the median over epochs. Before the first epoch ends, it is None."""
        return median(self.speeds) if self.speeds else None

    def on_train_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:  # runs after the evaluation of loaded weights
        self._fit_started_at = self._epoch_started_at = perf_counter()
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_started_at, self._batches, self._evaluated = perf_counter(), 0, False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches += 1  # A resumed run begins within an epoch.
        if batch_idx + 1 == trainer.num_training_batches:  # Lightning includes the evaluation, which follows, in the epoch.
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.speeds.append(self._batches * self.images_per_batch / (perf_counter() - self._epoch_started_at))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Engine)
        # Lightning keeps the metrics of earlier epochs.
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()} if self._evaluated else {}
        done, last = trainer.current_epoch + 1, trainer.max_epochs
        parts = [f"epoch {done:>3}/{last if last is not None and last > 0 else '?'}"]
        parts.append(f"loss {float(pl_module.epoch_loss()):.4f}")  # of all processes, which therefore all ask for it
        for name, format_ in sorted(pl_module.task.metric_formats.items(), key=lambda item: item[0] != "loss"):
            if format_.in_epoch_line and f"{VAL}/{name}" in metrics:
                text = format_.text(metrics[f"{VAL}/{name}"])
                parts.append(f"val {text}" if name == "loss" else text)
        monitor = pl_module.task.monitor.metric
        if f"{VAL_EMA}/{monitor}" in metrics:
            parts.append(f"EMA {pl_module.task.metric_formats[monitor].text(metrics[f'{VAL_EMA}/{monitor}'])}")
        parts += [f"{self.speeds[-1]:,.0f} images/s"] if self.speeds else []
        if last is not None and last > done:
            per_epoch = (perf_counter() - self._fit_started_at) / (done - self._first_epoch)
            parts.append(f"{clock(per_epoch * (last - done))} left")
        log.info("  ".join(parts))


class ProgressBar(RichProgressBar):
    """Shows progress and the loss of the last logged update on a terminal; to read a loss, the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self._loss: float | None = None

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict[str, float]]:
        shown = super().get_metrics(trainer, pl_module)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it in a connector.
        if trainer.training and (self._loss is None or trainer.global_step % every == 0):
            loss = trainer.callback_metrics.get("train/loss")
            self._loss = None if loss is None else float(loss)
        return shown if self._loss is None else shown | {"train/loss": self._loss}


class ProgressLines(Callback):
    """Logs a line every 30 s within an epoch and within an evaluation, for a run without a progress bar."""

    def __init__(self) -> None:
        self._run_started_at = 0.0
        self._first_update = 0
        self._evaluation_started_at = 0.0
        self._line_at = 0.0
        self._images = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._run_started_at = perf_counter()
        self._first_update = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_due(len(batch[0]) * trainer.world_size):
            updates, total = trainer.global_step, float(trainer.estimated_stepping_batches)
            done = updates - self._first_update
            left = (perf_counter() - self._run_started_at) * (total - updates) / done if done else None
            place = f"epoch {trainer.current_epoch + 1:>3}  batch {batch_idx + 1:,}/{trainer.num_training_batches:,}"
            self._log(place, left)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()
        self._evaluation_started_at = self._line_at

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._is_due(len(batch[0]) * trainer.world_size):
            done, total = batch_idx + 1, int(trainer.num_val_batches[0])
            left = (perf_counter() - self._evaluation_started_at) * (total / done - 1)
            self._log(f"evaluation  batch {done:,}/{total:,}", left)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()  # An evaluation may interrupt an epoch.

    def _restart(self) -> None:
        self._line_at, self._images = perf_counter(), 0

    def _is_due(self, images: int) -> bool:
        self._images += images
        return perf_counter() - self._line_at >= SECONDS_BETWEEN_LINES

    def _log(self, place: str, seconds_left: float | None) -> None:
        left = "" if seconds_left is None else f"  {clock(seconds_left)} left"
        log.info("%s  %s images/s%s", place, f"{self._images / (perf_counter() - self._line_at):,.0f}", left)
        self._restart()


class DataTimeMonitor(Callback):
    """Measures the share of the training time during which the run waits for the next batch.

    Args:
        seconds_waited: returns how many seconds the run has waited for batches so far.
        loader: description of the loader in the advice, such as "4 workers, 8 cores".
    """

    def __init__(self, seconds_waited: Callable[[], float], loader: str) -> None:
        self.seconds_waited = seconds_waited
        self.loader = loader
        self._started_at: float | None = None
        self._training_seconds = 0.0
        self._batches = 0

    @property
    def share(self) -> float | None:
        """Returns the share of the time from the first to the last batch of every epoch. Before the first batch, it is None."""
        return self.seconds_waited() / self._training_seconds if self._training_seconds > 0 else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 or self._started_at is None:
            self._started_at = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = perf_counter()
        assert self._started_at is not None
        self._training_seconds += now - self._started_at
        self._started_at = now
        self._batches += 1
        if self._batches == BATCHES_BEFORE_ADVICE and (self.share or 0) > ADVICE_THRESHOLD:
            log.warning("%s", self.advice())

    def advice(self) -> str:
        """Returns a warning with advice about slow data loading."""
        return (
            f"{self.share or 0:.0%} of the training time is waiting for data ({self.loader}): increase data.num_workers, "
            "or write smaller images once with swin-lab data pack --shorter-side"
        )


def clock(seconds: float) -> str:
    """Returns a time as H:MM:SS, or M:SS below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
