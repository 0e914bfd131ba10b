"""Which process is stuck: the one that stays behind the others. The clock is that of the test."""

from collections.abc import Callable

import pytest

from swin_lab.run import progress
from swin_lab.run.progress import Comparison, Place


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | None]:
    """Returns a function that compares the places of processes at a second, with a limit of 10 s."""
    comparison = Comparison(10)

    def stuck(second: float, *places: Place) -> int | None:
        monkeypatch.setattr(progress, "monotonic", lambda: second)
        return comparison.stuck(dict(enumerate(places)))

    return stuck


def test_a_process_that_stays_behind_the_others_is_stuck_after_the_limit(at: Callable[..., int | None]) -> None:
    assert at(0, Place(5), Place(5)) is None
    assert at(1, Place(6), Place(5)) is None
    assert at(10, Place(6), Place(5)) is None
    assert at(10.5, Place(6), Place(5)) == 1


def test_no_process_is_stuck_while_all_are_at_the_same_place(at: Callable[..., int | None]) -> None:
    """They may compile the network, or all wait for an operation of all processes."""
    assert at(0, Place(5), Place(5)) is None
    assert at(1000, Place(5), Place(5)) is None
    assert at(1001, Place(6), Place(5)) is None  # The time counts from where the other one has gone on.
    assert at(1012, Place(6), Place(5)) == 1


def test_a_process_for_which_the_others_wait_at_the_same_place_is_stuck(at: Callable[..., int | None]) -> None:
    waiting, hanging = Place(5, 3, waits=True), Place(5, 3)
    assert at(0, waiting, hanging, waiting) is None
    assert at(9, waiting, hanging, waiting) is None
    assert at(11, waiting, hanging, waiting) == 1
    assert at(12, waiting, Place(6, 3), waiting) is None


def test_no_process_is_stuck_while_all_wait(at: Callable[..., int | None]) -> None:
    """They may compute: a backward pass looks the same as waiting in it."""
    assert at(0, Place(5, waits=True), Place(5, waits=True)) is None
    assert at(1000, Place(5, waits=True), Place(5, waits=True)) is None


def test_a_process_that_evaluates_a_batch_more_goes_on(at: Callable[..., int | None]) -> None:
    assert at(0, Place(6, 3), Place(5, 3)) is None
    assert at(9, Place(6, 3), Place(5, 4)) is None
    assert at(18, Place(6, 3), Place(5, 4)) is None
    assert at(20, Place(6, 3), Place(5, 4)) == 1


def test_of_several_the_one_furthest_behind_is_named(at: Callable[..., int | None]) -> None:
    assert at(0, Place(7), Place(6), Place(4)) is None
    assert at(11, Place(7), Place(6), Place(4)) == 2


def test_a_place_is_read_as_it_was_written() -> None:
    for place in (Place(12, 3), Place(12, 3, waits=True)):
        assert Place.of(str(place)) == place
