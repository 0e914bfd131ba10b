"""The callback that saves the last checkpoint of a run, and stops the run at a signal."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from lightning import Callback, LightningModule, Trainer

from swin_lab.interruption import InterruptedRunError, Interruption
from swin_lab.training.checkpoint_io import LAST, BackgroundIO
from swin_lab.training.engine import Engine
from swin_lab.training.position import Position
from swin_lab.validation import PositiveInt, check_fields

NOTHING, SAVE, STOP = 0, 1, 2
MAX_MINUTES = 366 * 24 * 60
"""A year."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Contains when the last checkpoint is saved, besides the end of every epoch."""

    every_n_updates: PositiveInt | None = None
    """Number of updates between two checkpoints. If None, there is no such interval."""
    every_minutes: Annotated[float, Gt(0), Le(MAX_MINUTES)] | None = None
    """Minutes between two checkpoints. If None, there is no such interval."""

    def __post_init__(self) -> None:
        check_fields(self, "checkpoint.")


class LastCheckpoint(Callback):
    """Saves last.ckpt before the first update, after every epoch, at intervals, and at a signal, which then ends the run.

    The first one is read back, so that a disk that cannot be written stops the run at once, and a run can always be resumed.

    All processes decide together: one of them has received a signal, or the clock of the first one has reached the interval.
    A checkpoint is saved before a batch, when everything that belongs to the update before it, an evaluation and what is
    logged included, is complete; or within an evaluation, which a resumed run then begins again.

    Args:
        folder: folder of the checkpoints.
        config: the intervals.
        interruption: takes note of signals.
        read: reads a checkpoint file, and raises an error if it is damaged.
        write_settings: called before a checkpoint is saved, because someone may have removed the run directory.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        interruption: Interruption,
        *,
        read: Callable[[Path], object],
        write_settings: Callable[[], None],
    ) -> None:
        self.file = folder / LAST
        self.config = config
        self.interruption = interruption
        self.read = read
        self.write_settings = write_settings
        self._saved: Position | None = None
        self._saved_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interruption.install()  # Lightning has its own handlers, which it installs shortly before.
        assert isinstance(pl_module, Engine)
        self._saved, self._saved_at = pl_module.resumed, monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._act(trainer, due=True)
        if trainer.global_step == 0 and trainer.is_global_zero and self._saved is not None:
            io = trainer.strategy.checkpoint_io
            if isinstance(io, BackgroundIO):
                io.wait()
            self.read(self.file)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if isinstance(trainer.strategy.checkpoint_io, BackgroundIO):
            trainer.strategy.checkpoint_io.check()
        if batch_idx % trainer.accumulate_grad_batches == 0:
            interval = self.config.every_n_updates
            self._act(trainer, due=interval is not None and trainer.global_step % interval == 0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interruption.install()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Processes may have different numbers of batches here; they stop after the evaluation. So does a run that has made its
        # last update: Lightning would not evaluate it after it was resumed.
        if trainer.world_size == 1 and trainer.global_step != trainer.max_steps:
            self._act(trainer, due=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._act(trainer, due=True)

    def _act(self, trainer: Trainer, *, due: bool) -> None:
        """Saves if it is due, and raises InterruptedRunError after a signal."""
        decision = self._decision(trainer, due)
        engine = trainer.lightning_module
        assert isinstance(engine, Engine)
        saved = self.file.is_file()
        if decision != NOTHING and engine.is_training and engine.position != self._saved:
            self._save(trainer, engine)
            saved = True
        if decision == STOP:
            raise InterruptedRunError(self.interruption.name or "a signal to another process", saved=saved)

    def _decision(self, trainer: Trainer, due: bool) -> int:
        own = SAVE if due else NOTHING
        minutes = self.config.every_minutes
        evaluating = trainer.validating or trainer.sanity_checking
        if minutes is not None and trainer.is_global_zero and not evaluating and monotonic() - self._saved_at >= 60 * minutes:
            own = SAVE
        if self.interruption.name is not None:
            own = STOP
        if trainer.world_size == 1:
            return own
        greatest = torch.tensor(own, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(greatest, op=torch.distributed.ReduceOp.MAX)
        return int(greatest)

    def _save(self, trainer: Trainer, engine: Engine) -> None:
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero:
            self.write_settings()
        trainer.save_checkpoint(self.file)
        self._saved, self._saved_at = engine.position, monotonic()
