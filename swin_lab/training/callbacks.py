"""What a run says while it trains."""

import logging
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

log = logging.getLogger("swin_lab.training")

BATCHES_BEFORE_ADVICE = 100
SHARE_WORTH_ADVICE = 0.3
"""Of the time: below it more workers gain little."""


class EpochSummary(Callback):
    """One line per epoch, and how fast training was.

    Args:
        images_per_batch: images of one forward pass over all processes.
    """

    def __init__(self, images_per_batch: int = 0) -> None:
        self.images_per_batch = images_per_batch
        self.speeds: list[float] = []
        self._started_at = 0.0
        self._fit_started_at = 0.0

    @property
    def images_per_second(self) -> float | None:
        """Images trained on per second, evaluation left out: the median over epochs; None before the first ends."""
        return median(self.speeds) if self.speeds else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # after a look at loaded weights
        self._fit_started_at = perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started_at = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches:  # before the evaluation, which Lightning counts to the epoch
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.speeds.append((batch_idx + 1) * self.images_per_batch / (perf_counter() - self._started_at))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        done, last = trainer.current_epoch + 1, trainer.max_epochs
        parts = [f"epoch {done:>3}/{last if last is not None and last > 0 else '?'}"]
        parts += [f"loss {metrics['train/loss_epoch']:.4f}"] if "train/loss_epoch" in metrics else []
        parts += [f"val loss {metrics['val/loss']:.4f}"] if "val/loss" in metrics else []
        parts += [f"top-1 {metrics['val/acc1']:.2%}"] if "val/acc1" in metrics else []
        parts += [f"average {metrics['val_ema/acc1']:.2%}"] if "val_ema/acc1" in metrics else []
        parts += [f"{self.speeds[-1]:,.0f} images/s"] if self.speeds else []
        if last is not None and last > done:
            parts.append(f"{_clock((perf_counter() - self._fit_started_at) / done * (last - done))} left")
        log.info("  ".join(parts))


class DataTimeMonitor(Callback):
    """How much of the training time goes by before the next batch is there.

    Args:
        seconds_waited: for batches, up to now.
        readers: how batches are read, for the advice: "4 workers, 8 cores".
    """

    def __init__(self, seconds_waited: Callable[[], float] = lambda: 0.0, readers: str = "") -> None:
        self.seconds_waited = seconds_waited
        self.readers = readers
        self._started_at = 0.0
        self._trained_s = 0.0
        self._batches = 0

    @property
    def share(self) -> float | None:
        """Of the time from each epoch's first batch to its last; None before there is any."""
        return self.seconds_waited() / self._trained_s if self._trained_s > 0 else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._started_at = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = perf_counter()
        self._trained_s += now - self._started_at
        self._started_at = now
        self._batches += 1
        if self._batches == BATCHES_BEFORE_ADVICE and (self.share or 0) > SHARE_WORTH_ADVICE:
            log.warning("%s", self.advice())

    def advice(self) -> str:
        """What to do about it."""
        return (
            f"{self.share or 0:.0%} of the training time is waiting for data ({self.readers}): set data.num_workers, "
            "or write smaller images once with swin-lab data pack --shorter-side"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
