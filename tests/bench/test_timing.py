"""Medians, quartiles, ratios, clocks and the order of measurements."""

import pytest

from swin_lab.bench.timing import Plan, Spread, choose_clock, interleave, ratio
from swin_lab.errors import UserError


def test_a_spread_has_the_median_and_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)


def test_the_slowest_quartile_of_seconds_is_the_lowest_of_images_per_second() -> None:
    assert Spread(0.5, 0.25, 1.0).per_second(4) == Spread(8.0, 4.0, 16.0)


def test_a_ratio_is_formed_within_rounds_so_that_a_drift_of_both_cancels() -> None:
    assert ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == 2.0


def test_alternatives_are_called_in_turn_and_in_reverse_in_every_other_round() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b", "c")}
    seconds = interleave(calls, Plan("cpu", rounds=2, seconds=0.0))
    assert order[3:] == ["a", "b", "c", "c", "b", "a"]  # after one call of each to warm up
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_cpu_time_is_the_clock_of_one_thread_and_wall_time_that_of_several() -> None:
    assert [choose_clock("auto", "cpu", threads) for threads in (1, 2)] == ["cpu", "wall"]
    assert choose_clock("auto", "cuda", 1) == "cuda"


@pytest.mark.parametrize(("clock", "device", "threads"), [("cpu", "cuda", 1), ("cuda", "cpu", 1), ("cpu", "cpu", 2)])
def test_a_clock_that_does_not_measure_the_device_is_refused(clock: str, device: str, threads: int) -> None:
    with pytest.raises(UserError, match=f"--clock={clock}"):
        choose_clock(clock, device, threads)
