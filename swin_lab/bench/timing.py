"""Clocks, and measurements of several alternatives that are interleaved round by round.

Speed drifts: clocks of a processor change with its temperature, and shared machines have other users. Alternatives that are
measured one after the other differ by that drift. Here every round measures each of them once, and ratios are formed within
rounds, so that a drift over several rounds cancels.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median, quantiles
from typing import Literal

import torch

from swin_lab.errors import UserError

ClockName = Literal["cpu", "wall", "cuda"]
CLOCKS: tuple[ClockName, ...] = ("cpu", "wall", "cuda")

CLOCK_TEXT = {
    "cpu": "CPU time of this process",
    "wall": "wall time",
    "cuda": "GPU time between CUDA events",
}

MAX_CALLS = 10_000
"""Number of calls in one measurement at most."""


def choose_clock(name: str, device: str, threads: int) -> ClockName:
    """Returns the clock of a measurement.

    Args:
        name: auto, cpu, wall or cuda; auto is `cuda` on a GPU, CPU time on one thread, and wall time on several threads.
        device: "cpu" or "cuda".
        threads: threads of torch on the CPU.

    Raises:
        UserError: the clock does not measure what the device computes.
    """
    if name == "auto":
        return "cuda" if device == "cuda" else ("cpu" if threads == 1 else "wall")
    if name == "cpu" and device == "cuda":
        raise UserError("--clock=cpu does not measure a GPU; choose cuda or wall")
    if name == "cuda" and device != "cuda":
        raise UserError("--clock=cuda needs --device cuda; on a CPU, choose cpu or wall")
    if name == "cpu" and threads > 1:
        raise UserError(f"--clock=cpu adds up the time of all {threads} threads; choose --clock wall, or --threads 1")
    return next(clock for clock in CLOCKS if clock == name)


def seconds_of(call: Callable[[], object], clock: ClockName, calls: int = 1) -> float:
    """Returns the seconds of one call, the mean of `calls` successive ones."""
    if clock == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000 / calls
    now = time.process_time if clock == "cpu" else time.perf_counter
    _synchronize()
    started_at = now()
    for _ in range(calls):
        call()
    _synchronize()
    return (now() - started_at) / calls


def _synchronize() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Plan:
    """Describes how long alternatives are measured."""

    clock: ClockName
    rounds: int
    """Rounds; each measures every alternative once."""
    seconds: float
    """Least time of one measurement; a call that takes longer is made once."""


def interleave(alternatives: Mapping[str, Callable[[], object]], plan: Plan) -> dict[str, list[float]]:
    """Measures alternatives in turn, after each has been called once to warm up; it must have run before, to be compiled.

    The order is reversed in every other round, so that none always follows the same neighbour.

    Returns:
        The seconds of one call of every alternative, one entry per round.
    """
    calls = {name: _calls(call, plan) for name, call in alternatives.items()}
    found: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(plan.rounds):
        for name in list(alternatives) if number % 2 == 0 else reversed(list(alternatives)):
            found[name].append(seconds_of(alternatives[name], plan.clock, calls[name]))
    return found


def _calls(call: Callable[[], object], plan: Plan) -> int:
    """Warms up, and returns how many calls fill the least time of a measurement."""
    once = max(seconds_of(call, plan.clock), 1e-7)
    return min(MAX_CALLS, max(1, ceil(plan.seconds / once)))


@dataclass(frozen=True)
class Spread:
    """Contains the median and the quartiles of measurements."""

    median: float
    low: float
    """Lower quartile."""
    high: float
    """Upper quartile."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Returns the spread of at least one value; that of one value has no width."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(median(values), low, high)

    def per_second(self, images: float) -> "Spread":
        """Returns images per second, of seconds per `images` images."""
        return Spread(images / self.median, images / self.high, images / self.low)


def ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """Returns how many times faster the first of two alternatives is: the median over rounds of the ratio of their seconds."""
    return median(other / own for own, other in zip(ours, others, strict=True))
