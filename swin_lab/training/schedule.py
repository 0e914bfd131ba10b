"""Learning-rate schedules: a linear warm-up, then a decay. Values are factors of the peak learning rate.

The formulas are those of github.com/microsoft/Swin-Transformer at f82860b (lr_scheduler.py) and of the timm schedulers that it
uses. With factors, the whole schedule scales with the learning rate and the global batch size.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from math import cos, pi
from typing import Literal

from swin_lab.errors import UserError
from swin_lab.validation import NonNegativeFloat, PositiveFloat, PositiveInt, Probability, check_fields


@dataclass(frozen=True)
class RunLength:
    """Contains the length of a run in optimizer updates."""

    steps_per_epoch: int
    total_steps: int


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """Computes a linear warm-up, then the decay of the subclass."""

    warmup_epochs: NonNegativeFloat
    """Length of the warm-up; it may be a fraction of an epoch."""
    warmup_lr_ratio: Probability
    """Learning rate of the first update, divided by the peak learning rate."""
    interval: Literal["update", "epoch"] = "update"
    """Whether the learning rate changes with every update or, as in torchvision's recipes, with every epoch."""

    def __post_init__(self) -> None:
        check_fields(self, "schedule.")

    def warmup_steps(self, length: RunLength) -> int:
        """Returns the number of updates before the peak learning rate is reached."""
        return round(self.warmup_epochs * length.steps_per_epoch)

    def factor(self, step: int, length: RunLength) -> float:
        """Returns the learning rate of an update, counted from 0, divided by the peak learning rate."""
        if self.interval == "epoch":
            step -= step % length.steps_per_epoch
        warmup = self.warmup_steps(length)
        if step < warmup:
            return self.warmup_lr_ratio + (1 - self.warmup_lr_ratio) * step / warmup
        start = warmup if self.decays_after_warmup() else 0
        return self.decay(step - start, RunLength(length.steps_per_epoch, max(1, length.total_steps - start)))

    def decays_after_warmup(self) -> bool:
        """Returns whether the decay counts updates from the end of the warm-up, instead of from the start of the run."""
        return False

    @abstractmethod
    def decay(self, step: int, length: RunLength) -> float:
        """Returns the factor `step` updates after the start of the decay, which is `length.total_steps` updates long."""


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Keeps the peak learning rate until the end of the run."""

    def decay(self, step: int, length: RunLength) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Follows half a cosine: r + (1 - r)(1 + cos(pi t/T))/2 with r = min_lr_ratio (arXiv 2103.14030, 4.1; 1608.03983)."""

    min_lr_ratio: Probability
    """Learning rate at the end, divided by the peak learning rate."""
    cosine_after_warmup: bool = True
    """If true, T is the run without its warm-up. If false, T is the whole run, so that the learning rate drops at the end of
    the warm-up to the value of the cosine at that update. The published weights were trained with false, as the official code
    did before its option WARMUP_PREFIX; its current configuration files set that option, which is true here."""

    def decays_after_warmup(self) -> bool:
        return self.cosine_after_warmup

    def decay(self, step: int, length: RunLength) -> float:
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * (1 + cos(pi * min(1.0, step / length.total_steps))) / 2


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """Decreases linearly from the end of the warm-up to the end of the run."""

    min_lr_ratio: Probability
    """Learning rate at the end, divided by the peak learning rate."""

    def decays_after_warmup(self) -> bool:
        return True

    def decay(self, step: int, length: RunLength) -> float:
        return 1 - (1 - self.min_lr_ratio) * min(1.0, step / length.total_steps)


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """Multiplies the learning rate by gamma every `every_epochs` epochs, counted from the start of the run."""

    every_epochs: PositiveFloat
    gamma: Probability

    def decay(self, step: int, length: RunLength) -> float:
        return self.gamma ** (step // max(1, int(self.every_epochs * length.steps_per_epoch)))


@dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """Multiplies the learning rate by gamma at each of the given epochs, counted from the start of the run."""

    epochs: tuple[PositiveInt, ...]
    gamma: Probability

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epochs or list(self.epochs) != sorted(set(self.epochs)):
            raise UserError(f"schedule.epochs={list(self.epochs)} must be a list of positive integers in increasing order")

    def decay(self, step: int, length: RunLength) -> float:
        return self.gamma ** bisect_right([epoch * length.steps_per_epoch for epoch in self.epochs], step)
