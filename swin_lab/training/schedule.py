"""Learning-rate schedules: a warm-up, then a way down. Rates are parts of the highest one, so that all follow the batch.

The formulas are those of github.com/microsoft/Swin-Transformer at f82860b (lr_scheduler.py) and of the timm schedulers it uses.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi

from swin_lab.errors import UserError, did_you_mean, is_number, is_whole

PREFIXES = ("fixed", "as_published")
INTERVALS = ("update", "epoch")


@dataclass(frozen=True)
class Span:
    """How long a run is, in optimizer updates."""

    per_epoch: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """A linear warm-up, then what the subclass makes of the rest."""

    warmup_epochs: float
    """May be a fraction."""
    warmup_start: float
    """Learning rate of the first update over the highest."""
    interval: str = "update"
    """Whether the rate changes with every update or, as in torchvision's recipes, with every epoch."""

    def __post_init__(self) -> None:
        if not is_number(self.warmup_epochs) or self.warmup_epochs < 0:
            raise UserError(f"schedule.warmup_epochs={self.warmup_epochs} is no number of zero or more")
        _check_part("warmup_start", self.warmup_start)
        if self.interval not in INTERVALS:
            raise UserError(f"schedule.interval={self.interval} is unknown{did_you_mean(str(self.interval), INTERVALS)}")

    def warmup_updates(self, span: Span) -> int:
        """Updates before the highest rate is reached."""
        return round(self.warmup_epochs * span.per_epoch)

    def factor(self, update: int, span: Span) -> float:
        """The learning rate of this update (counted from 0) over the highest."""
        if self.interval == "epoch":
            update -= update % span.per_epoch
        warmup = self.warmup_updates(span)
        if update < warmup:
            return self.warmup_start + (1 - self.warmup_start) * update / warmup
        before = warmup if self._counts_from_warmup() else 0
        return self._way_down(update - before, Span(span.per_epoch, max(1, span.total - before)))

    def _counts_from_warmup(self) -> bool:
        """Whether the way down counts updates from the end of the warm-up, instead of from the start of the run."""
        return False

    @abstractmethod
    def _way_down(self, update: int, span: Span) -> float:
        """The factor, so many updates after the way down began; it is span.total updates long."""


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The highest rate to the end."""

    def _way_down(self, update: int, span: Span) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine (arXiv 2103.14030, section 4.1; arXiv 1608.03983): final + (1 - final)(1 + cos(pi t/T))/2."""

    final: float
    """Learning rate at the end over the highest."""
    warmup_prefix: str = "fixed"
    """fixed: T is the run without its warm-up. as_published: T is the whole run, so that the rate drops at the end of the
    warm-up to where the cosine would be by then; this is how the official code was before it was mended."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("final", self.final)
        if self.warmup_prefix not in PREFIXES:
            wrong = did_you_mean(str(self.warmup_prefix), PREFIXES)
            raise UserError(f"schedule.warmup_prefix={self.warmup_prefix} is unknown{wrong}")

    def _counts_from_warmup(self) -> bool:
        return self.warmup_prefix == "fixed"

    def _way_down(self, update: int, span: Span) -> float:
        return self.final + (1 - self.final) * (1 + cos(pi * min(1.0, update / span.total))) / 2


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """A straight line from the end of the warm-up to the end of the run."""

    final: float
    """Learning rate at the end over the highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("final", self.final)

    def _counts_from_warmup(self) -> bool:
        return True

    def _way_down(self, update: int, span: Span) -> float:
        return 1 - (1 - self.final) * min(1.0, update / span.total)


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """Times gamma every so many epochs, counted from the start of the run."""

    every_epochs: float
    gamma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("gamma", self.gamma)
        if not is_number(self.every_epochs) or self.every_epochs <= 0:
            raise UserError(f"schedule.every_epochs={self.every_epochs} is no number above zero")

    def _way_down(self, update: int, span: Span) -> float:
        return self.gamma ** (update // max(1, int(self.every_epochs * span.per_epoch)))


@dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """Times gamma at each of the given epochs, counted from the start of the run."""

    epochs: Sequence[int]
    gamma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("gamma", self.gamma)
        rising = list(self.epochs) == sorted(set(self.epochs)) if all(map(is_whole, self.epochs)) else False
        if not rising or not self.epochs or self.epochs[0] < 1:
            raise UserError(f"schedule.epochs={list(self.epochs)}: give whole numbers above zero in rising order")

    def _way_down(self, update: int, span: Span) -> float:
        return self.gamma ** bisect_right([epoch * span.per_epoch for epoch in self.epochs], update)


def _check_part(name: str, value: float) -> None:
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f"schedule.{name}={value} is no part of the highest learning rate; give a number from 0 to 1")
