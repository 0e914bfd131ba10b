"""The jobs that overrides with several values describe, in Hydra's syntax: a,b  choice(a,b)  range(0,3)  interval(0,1)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep

from swin_lab.errors import UserError, did_you_mean
from swin_lab.run.choices import choices
from swin_lab.run.sweep.settings import OF_SWEEPS

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

TAGS = ("log",)
"""Tags of intervals: tag(log, interval(1e-4, 1e-2)) has the same chance for equal ratios."""
MAX_JOBS = 10_000


@dataclass(frozen=True)
class Parameter:
    """Describes a key with several values."""

    key: str
    """With the prefix of its override, such as +model.x."""
    text: str
    """The override as it was typed."""
    values: tuple[str, ...] | None
    """The values as they are written in overrides; None for an interval."""
    swept: Any
    """Hydra's description."""

    @property
    def examples(self) -> tuple[str, ...]:
        """Returns the values, or one end of the interval."""
        return (_written(self.swept.start),) if self.values is None else self.values


@dataclass(frozen=True)
class Space:
    """Contains the overrides of a sweep."""

    fixed: tuple[str, ...]
    """What all jobs have in common."""
    parameters: tuple[Parameter, ...]

    def combinations(self) -> list[tuple[str, ...]]:
        """Returns the overrides of all jobs of a grid.

        Raises:
            UserError: a key has an interval of values, there is no job, or there are too many.
        """
        count = 1
        for parameter in self.parameters:
            if parameter.values is None:
                raise UserError(
                    f"{parameter.text} has no list of values, which a grid needs; add search=optuna, or give "
                    f"{parameter.key}=A,B,C"
                )
            count *= len(parameter.values)
        if not 0 < count <= MAX_JOBS:
            raise UserError(
                f"the sweep {' '.join(p.text for p in self.parameters)} has {count or 'no'} runs; "
                + ("give at least one value" if not count else f"the limit is {MAX_JOBS}; search=optuna tries some of them")
            )
        lists = [[f"{parameter.key}={value}" for value in parameter.values or ()] for parameter in self.parameters]
        return list(dict.fromkeys((*self.fixed, *values) for values in product(*lists)))

    def examples(self) -> Iterator[tuple[str, ...]]:
        """Yields overrides in which every value of every key occurs, the others being the first of their keys."""
        first = {parameter.key: parameter.examples[0] for parameter in self.parameters}
        yield (*self.fixed, *(f"{key}={value}" for key, value in first.items()))
        for parameter in self.parameters:
            for value in parameter.examples[1:]:
                yield (*self.fixed, *(f"{key}={other}" for key, other in (first | {parameter.key: value}).items()))

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """Returns what Optuna draws the value of each key from.

        Raises:
            UserError: no key has several values, or an interval is empty.
        """
        if not self.parameters:
            raise UserError(
                "search=optuna has no key to search; give one as 'optimizer.lr=tag(log, interval(1e-4, 1e-2))' or ema=none,warm"
            )
        found = {}
        for parameter in self.parameters:
            try:
                found[parameter.key] = _distribution(parameter)
            except ValueError as error:  # Optuna's
                raise UserError(f"{parameter.text}: {str(error).splitlines()[0]}") from error
        return found

    def overrides(self, drawn: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the overrides of a job with the values that Optuna has drawn."""
        return (*self.fixed, *(f"{parameter.key}={_written(drawn[parameter.key])}" for parameter in self.parameters))


def read_space(overrides: Sequence[str], config_dirs: Sequence[Path]) -> Space:
    """Reads the overrides of a sweep; later ones replace earlier ones, and those for the sweep itself are left out.

    Raises:
        UserError: a key has no value, or a tag is unknown.
        HydraException: an override cannot be parsed.
    """
    fixed: dict[str, str] = {}
    parameters: dict[str, Parameter] = {}
    for text, override in zip(overrides, OverridesParser.create().parse_overrides(list(overrides)), strict=True):
        key = override.get_key_element()
        fixed.pop(key, None)
        parameters.pop(key, None)
        if override.key_or_group.partition(".")[0] in OF_SWEEPS:
            if override.is_sweep_override():
                raise UserError(f"{text} cannot have several values: it is a setting of the sweep")
        elif override.is_sweep_override():
            parameters[key] = _parameter(key, text, override, config_dirs)
        else:
            fixed[key] = text
    return Space(tuple(fixed.values()), tuple(parameters.values()))


def _parameter(key: str, text: str, override: Override, config_dirs: Sequence[Path]) -> Parameter:
    swept = override.value()
    for tag in getattr(swept, "tags", ()):
        if tag not in TAGS or not isinstance(swept, IntervalSweep):
            raise UserError(f"{text}: the tag {tag} is not one of intervals{did_you_mean(tag, TAGS)}")
    values: tuple[str, ...] | None = None
    if isinstance(swept, Glob):
        values = tuple(swept.filter(choices(override.key_or_group, config_dirs)))
    elif not isinstance(swept, IntervalSweep):
        values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if values == ():
        raise UserError(f"the sweep {text} has no runs; give at least one value")
    return Parameter(key, text, values, swept)


def _distribution(parameter: Parameter) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    swept = parameter.swept
    if isinstance(swept, IntervalSweep):
        assert swept.start is not None
        assert swept.end is not None
        if isinstance(swept.start, int) and isinstance(swept.end, int):
            return IntDistribution(swept.start, swept.end, log="log" in swept.tags)
        return FloatDistribution(float(swept.start), float(swept.end), log="log" in swept.tags)
    if isinstance(swept, RangeSweep) and not swept.shuffle and swept.step > 0:
        numbers = list(swept.range())  # As in a grid, the end is not among them.
        if isinstance(numbers[0], int):
            return IntDistribution(numbers[0], numbers[-1], step=int(swept.step))
        return FloatDistribution(numbers[0], numbers[-1], step=swept.step)
    return CategoricalDistribution(parameter.values or ())


def _written(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def quoted(value: object) -> str:
    """Returns a value as it is written in an override."""
    return "'" + value.replace("'", "\\'") + "'" if isinstance(value, str) else str(value)
