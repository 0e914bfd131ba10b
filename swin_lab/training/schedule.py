"""Learning-rate schedules, stepped once per optimizer update."""

from dataclasses import dataclass
from math import cos, pi
from typing import Protocol

from swin_lab.errors import UserError, is_number


class Schedule(Protocol):
    """What `schedule=` chooses."""

    warmup_epochs: float

    def factor(self, update: int, warmup_updates: int, total_updates: int) -> float:
        """The learning rate of this update (counted from 0) over the highest."""


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine (arXiv 2103.14030, section 4.1; arXiv 1608.03983).

    With W warm-up updates of T and t counted from 0: start + (1 - start) t/W, then final + (1 - final)(1 + cos(pi u))/2,
    where u runs from 0 to 1 over the T - W updates after the warm-up if `warmup_prefix`, or over all T updates.
    """

    warmup_epochs: float
    """May be a fraction."""
    warmup_start: float
    """Learning rate of the first update over the highest."""
    final: float
    """Learning rate at the end over the highest."""
    warmup_prefix: bool = True

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_epochs, self.warmup_start)
        if not is_number(self.final) or not 0 <= self.final <= 1:
            raise UserError(f"schedule.final={self.final} is no part of the highest learning rate; give a number from 0 to 1")

    def factor(self, update: int, warmup_updates: int, total_updates: int) -> float:
        if update < warmup_updates:
            return self.warmup_start + (1 - self.warmup_start) * update / warmup_updates
        before = warmup_updates if self.warmup_prefix else 0
        progress = min(1.0, (update - before) / max(1, total_updates - before))
        return self.final + (1 - self.final) * (1 + cos(pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
class WarmupConstant:
    """Linear warm-up, then the highest learning rate."""

    warmup_epochs: float
    warmup_start: float

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_epochs, self.warmup_start)

    def factor(self, update: int, warmup_updates: int, total_updates: int) -> float:
        if update < warmup_updates:
            return self.warmup_start + (1 - self.warmup_start) * update / warmup_updates
        return 1.0


def _check_warmup(epochs: float, start: float) -> None:
    if not is_number(epochs) or epochs < 0:
        raise UserError(f"schedule.warmup_epochs={epochs} is no number of zero or more")
    if not is_number(start) or not 0 <= start <= 1:
        raise UserError(f"schedule.warmup_start={start} is no part of the highest learning rate; give a number from 0 to 1")
