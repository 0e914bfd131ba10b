"""Settings of the optimizer and its schedule that a resumed run changes, which the state in its checkpoint would undo."""

from typing import Any

from lightning import Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class OptimizerSettings:
    """Knows the settings of every parameter group as they were configured, in this run and in the one that it resumes."""

    def __init__(self) -> None:
        self.configured: list[dict[str, Any]] = []
        """Of this run; plain Python."""
        self.resumed: list[dict[str, Any]] | None = None
        """Of the run that wrote the checkpoint. If None, none is resumed."""

    def note(self, optimizer: Optimizer) -> None:
        """Takes note of the settings, once a schedule has stored the initial learning rates and before the first update."""
        self.configured = [
            {key: value for key, value in group.items() if key not in ("params", "lr") and not isinstance(value, Tensor)}
            for group in optimizer.param_groups
        ]

    def apply_changes(self, trainer: Trainer) -> None:
        """Gives the optimizer the settings that have changed since the checkpoint, and the learning rate of this schedule.

        Other values of a group stay as they were restored: an optimizer may change them in its updates.
        """
        if self.resumed is None:
            return
        groups = trainer.optimizers[0].param_groups
        for group, before, now in zip(groups, self.resumed, self.configured, strict=True):
            group.update({key: value for key, value in now.items() if key not in before or before[key] != value})
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        assert isinstance(scheduler, LambdaLR)
        scheduler.base_lrs = [group["initial_lr"] for group in groups]
        for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            if not isinstance(group["lr"], Tensor):
                group["lr"] = base * factor(scheduler.last_epoch)
