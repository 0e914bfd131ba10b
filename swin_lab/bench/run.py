"""What the loader costs a training run: the real loop with the real loader against the same loop on a resident batch."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset

from swin_lab.bench.timing import Spread
from swin_lab.errors import UserError
from swin_lab.run.trainer import build_trainer
from swin_lab.run.training import Training

LOADER, NETWORK = "loader", "network"
WAITING = 0.05
"""Share of the training time spent waiting for batches above which the loader is the bottleneck."""


@dataclass(frozen=True)
class RunSpeed:
    """Contains the speed of a training run in wall time."""

    real: Spread
    """Images per second with the real loader, over rounds."""
    resident: Spread
    """Images per second on a batch that stays on the device."""
    loader_share: float
    """Share of the time that the loader costs: 1 - real / resident, the median over rounds; noise can make it negative."""
    waiting_share: float
    """Share of the time with the real loader that the process waits for the next batch."""
    bottleneck: str
    """"loader" if the run waits for batches more than `WAITING` of its time, else "network"."""
    first_update: float
    """Seconds from the first batch of the first training to the end of its first update, which include compilation."""
    peak_bytes: int | None
    """Memory of the GPU that torch allocates at its highest. If None, the run is on another device."""


def measure_run(training: Training, updates: int, warmup: int, rounds: int) -> RunSpeed:
    """Trains with the real loader and on a resident batch in turn.

    Both use the same network, engine, optimizer and Trainer settings; nothing is evaluated, logged or written. The resident
    batch is the first one of the real loader, as it arrives at the task: decoded, augmented and on the device.

    Args:
        training: the components of the run.
        updates: updates that are timed in each of them.
        warmup: updates before these.
        rounds: times that both are run.

    Raises:
        UserError: the run ends before that many updates.
    """
    real, resident, waited, first = [], [], [], []
    on_gpu = training.launch.trainer.strategy.root_device.type == "cuda"
    for _ in range(rounds):
        clock = _fit(training, training.data_module, updates, warmup)
        real.append(clock.seconds)
        waited.append(clock.waited / clock.seconds)
        first.append(clock.first_update)
        batches = training.batching.accumulate * (updates + warmup)
        resident.append(_fit(training, Resident(clock.batch, batches), updates, warmup).seconds)
    images = training.batching.global_batch * updates
    share = median(waited)
    cost = median(1 - still / moving for still, moving in zip(resident, real, strict=True))
    return RunSpeed(
        Spread.of(real).per_second(images),
        Spread.of(resident).per_second(images),
        cost,
        share,
        LOADER if share > WAITING else NETWORK,
        first[0],
        torch.cuda.max_memory_allocated() if on_gpu else None,
    )


class Resident(LightningDataModule):
    """Provides one batch again and again.

    Args:
        batch: on the device, as the task gets it.
        batches: of an epoch.
    """

    def __init__(self, batch: Any, batches: int) -> None:
        super().__init__()
        self.batch = batch
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns a loader whose items are the batch itself."""
        return DataLoader(_Repeated(self.batch, self.batches), batch_size=None)


class _Repeated(IterableDataset[Any]):
    def __init__(self, batch: Any, batches: int) -> None:
        self.batch = batch
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        return (self.batch for _ in range(self.batches))


class _Clock(Callback):
    """Measures the wall time of the updates after the first `warmup` ones and of the first one, and keeps the first batch."""

    def __init__(self, training: Training, warmup: int) -> None:
        self.training = training
        self.warmup = warmup
        self.batch: Any = None
        self.seconds = 0.0
        self.waited = 0.0
        self.first_update = 0.0
        self._began_at = 0.0
        self._started_at: float | None = None
        self._waited_before = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.batch is None:
            self.batch = [part.clone() if isinstance(part, torch.Tensor) else part for part in batch]
            self._began_at = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.first_update and trainer.global_step:
            _synchronize()
            self.first_update = time.perf_counter() - self._began_at
        if self._started_at is None and trainer.global_step >= self.warmup:
            _synchronize()
            self._started_at, self._waited_before = time.perf_counter(), self.training.data_module.seconds_waited

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._started_at is not None:
            _synchronize()
            self.seconds = time.perf_counter() - self._started_at
            self.waited = self.training.data_module.seconds_waited - self._waited_before


def _fit(training: Training, data: LightningDataModule, updates: int, warmup: int) -> _Clock:
    """Trains, and returns the clock with its measurements."""
    clock = _Clock(training, warmup)
    trainer = build_trainer(
        training.config.trainer,
        training.launch.precision,
        callbacks=[*training.callbacks, clock],
        accumulate=training.batching.accumulate,
    )
    trainer.fit(training.engine, data)
    if trainer.global_step - warmup < updates:
        raise UserError(f"the run ended after {trainer.global_step} updates; --updates={updates} needs {updates + warmup}")
    return clock


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
