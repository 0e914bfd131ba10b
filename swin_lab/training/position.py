"""The place of a checkpoint within its run, and the state of Lightning's loops that continues exactly there.

Lightning's own state of its loops depends on the hook that has saved a checkpoint: saved before an evaluation, the run would go
on without it. Here the place is described in the terms of the run, and the counters of the loops are derived from it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning import Trainer

from swin_lab.validation import NonNegativeInt, PositiveInt, check_fields

Evaluation = Literal["none", "due", "done"]
"""The evaluation after the last update: there is none, it has not been finished, or it has been."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Describes a place between two updates of a run."""

    epoch: NonNegativeInt
    """Number of finished epochs."""
    updates: NonNegativeInt
    """Number of updates since the beginning of the run."""
    batches: NonNegativeInt
    """Number of batches of the current epoch that each process has used."""
    accumulate: PositiveInt
    """Batches of an update."""
    evaluation: Evaluation

    def __post_init__(self) -> None:
        check_fields(self, "position.")

    @classmethod
    def of(cls, trainer: Trainer, evaluated: tuple[int, int] | None) -> "Position":
        """Returns the place where a Trainer is: before a batch or an epoch, in an evaluation, or at the end.

        Args:
            trainer: a Trainer that trains.
            evaluated: epoch and batches after which the last evaluation was finished. If None, there was none.
        """
        epoch: Any = trainer.fit_loop.epoch_progress.current  # Lightning declares a class with fewer counters.
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        batches = int(progress.processed)
        evaluation: Evaluation = "due" if trainer.validating else "none"
        if evaluated == (epoch.processed, batches):
            evaluation = "done"
        if epoch.started == epoch.processed:  # between two epochs
            batches, evaluation = 0, "none"
        accumulate = int(trainer.accumulate_grad_batches)
        return cls(
            epoch=epoch.processed,
            updates=trainer.global_step,
            batches=batches,
            accumulate=accumulate,
            evaluation=evaluation,
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns plain Python."""
        return asdict(self)

    def batches_with(self, accumulate: int) -> int:
        """Returns `batches` of a run that accumulates another number of batches, as one with more processes does."""
        return self.batches // self.accumulate * accumulate if accumulate != self.accumulate else self.batches

    @property
    def updates_of_epoch(self) -> int:
        """Returns the updates of the current epoch; its last one may have fewer batches."""
        return -(-self.batches // self.accumulate)

    def loops(self, saved: Mapping[str, Any], accumulate: int) -> dict[str, Any]:
        """Returns the state of Lightning's fit loop with which a run continues at this place.

        Args:
            saved: the state in the checkpoint, from which the counters of the optimizer and the schedule are taken.
            accumulate: batches of an update of the run that continues.
        """
        batches = self.batches_with(accumulate)
        total = saved["epoch_loop.batch_progress"]["total"]["processed"]
        if accumulate != self.accumulate:
            total = self.updates * accumulate
        begun = self.epoch + (batches > 0)
        epoch = {"ready": begun, "started": begun, "processed": self.epoch, "completed": self.epoch}
        # Lightning passes the end of a batch again where an evaluation belongs to it, and counts its update there.
        counted = self.updates - (self.evaluation != "none")
        # An evaluation whose first batch was not completed is run again, from its first batch.
        evaluated = {"ready": 1, "started": 1, "processed": 0, "completed": 0} if self.evaluation == "due" else _all(0)
        return dict(saved) | {
            "epoch_progress": {"total": dict(epoch), "current": dict(epoch)},
            "epoch_loop.state_dict": {"_batches_that_stepped": counted},
            "epoch_loop.batch_progress": {"total": _all(total), "current": _all(batches), "is_last_batch": False},
            "epoch_loop.val_loop.batch_progress": {
                "total": dict(evaluated),
                "current": dict(evaluated),
                "is_last_batch": False,
            },
        }


def _all(count: int) -> dict[str, int]:
    """Returns a tracker of Lightning of events that are all complete."""
    return dict.fromkeys(("ready", "started", "processed", "completed"), count)
