"""Optuna's storage of a search, and the callback by which a run is one of its trials."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from swin_lab.interruption import InterruptedRunError
from swin_lab.run.ending import PRUNING
from swin_lab.validation import PositiveInt

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner

log = logging.getLogger("swin_lab")

STUDY = "sweep"
"""Name of the study in its file."""


def open_study(file: Path, mode: str, pruner: "BasePruner | None" = None) -> "Study":
    """Opens the study in a file, which several machines can share; begins it if there is none.

    Args:
        file: Optuna's journal, which needs no locks of the file system, unlike SQLite.
        mode: "min" or "max".
        pruner: which trials are stopped. If None, none.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(file))),
        study_name=STUDY,
        direction="minimize" if mode == "min" else "maximize",
        pruner=pruner or optuna.pruners.NopPruner(),
        load_if_exists=True,
    )


class Pruning(Callback):
    """Reports the monitored metric of every evaluation to Optuna, and ends the run if Optuna prunes the trial.

    Args:
        monitor: full name of the metric, which the run gives.
        mode: "min" or "max", likewise.
        file: file of the study.
        trial: number of the trial.
        pruner: "median" or "none", as conf/search/optuna.yaml explains it.
        startup_trials: number of finished trials before which none is pruned.
        warmup_epochs: number of epochs before which no trial is pruned.
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"],
        file: str,
        trial: int,
        pruner: Literal["median", "none"],
        startup_trials: PositiveInt,
        warmup_epochs: PositiveInt,
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.file = Path(file)
        self.trial = trial
        self.pruner = pruner
        self.startup_trials = startup_trials
        self.warmup_epochs = warmup_epochs

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        prunes, epoch = False, trainer.current_epoch + 1
        if trainer.is_global_zero:
            prunes = self._report(epoch, float(trainer.callback_metrics[self.monitor]))
        if trainer.strategy.broadcast(prunes):
            log.info("%-10s after epoch %d: %s is worse than in other trials", "pruned", epoch, self.monitor)
            raise InterruptedRunError(PRUNING, saved=False)

    def _report(self, epoch: int, value: float) -> bool:
        """Stores a value, and returns whether the trial is to be pruned."""
        from optuna.pruners import MedianPruner, NopPruner

        median = MedianPruner(n_startup_trials=self.startup_trials, n_warmup_steps=self.warmup_epochs)
        study = open_study(self.file, self.mode, median if self.pruner == "median" else NopPruner())
        found = [trial for trial in study.get_trials(deepcopy=False) if trial.number == self.trial]
        if not found or found[0].state.is_finished():  # Someone repeats the run later, outside its sweep.
            return False
        storage = study._storage  # Optuna has no public way to continue a trial in another process.
        if epoch not in found[0].intermediate_values:  # A resumed run may repeat an evaluation.
            storage.set_trial_intermediate_value(found[0]._trial_id, epoch, value)
        return study.pruner.prune(study, storage.get_trial(found[0]._trial_id))
