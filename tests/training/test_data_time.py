"""The share of the training time that is waiting for data, on a simulated clock."""

import logging

import pytest

from swin_lab.training import DataTimeMonitor
from swin_lab.training.callbacks import BATCHES_BEFORE_ADVICE


class Clock:
    """Stands still until the test advances it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("swin_lab.training.callbacks.perf_counter", clock)
    return clock


class Run:
    """Simulates epochs with a waiting time and a working time per batch in seconds."""

    def __init__(self, clock, loader=""):
        self.clock = clock
        self.waited = 0.0
        self.wait = DataTimeMonitor(lambda: self.waited, loader)

    def epoch(self, batches, waiting, working):
        for index in range(batches):
            self.clock.now += (
                1000.0 if index == 0 else waiting
            )  # Workers start before the first batch; this time does not count.
            self.waited += 0.0 if index == 0 else waiting
            self.wait.on_train_batch_start(None, None, None, index)
            self.clock.now += working
            self.wait.on_train_batch_end(None, None, None, None, index)
        return self


@pytest.fixture
def logged(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("swin_lab"), "propagate", True)
    caplog.set_level(logging.WARNING, "swin_lab")
    return caplog


def test_before_any_batch_the_share_is_none():
    assert DataTimeMonitor(lambda: 0.0, "").share is None


def test_the_share_is_waiting_over_all_the_time_from_the_first_batch_to_the_last(clock):
    assert Run(clock).epoch(11, waiting=1.0, working=3.0).wait.share == pytest.approx(10 / 43)


def test_the_time_between_epochs_does_not_count(clock):
    run = Run(clock)
    for _ in range(3):
        run.epoch(11, waiting=1.0, working=3.0)
        clock.now += 500.0  # an evaluation
    assert run.wait.share == pytest.approx(10 / 43)


def test_time_of_callbacks_between_batches_is_not_waiting(clock):
    """A progress bar may wait for the GPU, or a checkpoint may be written; only the time in the loader counts."""
    run = Run(clock)
    for index in range(5):
        run.wait.on_train_batch_start(None, None, None, index)
        clock.now += 1.0
        run.wait.on_train_batch_end(None, None, None, None, index)
        clock.now += 100.0
    assert run.wait.share == 0.0


def test_much_waiting_gives_one_warning_with_advice(clock, logged):
    Run(clock, "4 workers, 8 cores").epoch(3 * BATCHES_BEFORE_ADVICE, waiting=3.0, working=1.0)
    assert logged.text.count("of the training time is waiting for data") == 1
    assert "75% of the training time is waiting for data (4 workers, 8 cores): increase data.num_workers" in logged.text
    assert "swin-lab data pack" in logged.text


def test_little_waiting_gives_no_warning(clock, logged):
    Run(clock).epoch(3 * BATCHES_BEFORE_ADVICE, waiting=1.0, working=4.0)
    assert logged.text == ""


def test_a_short_run_gives_no_warning(clock, logged):
    Run(clock).epoch(BATCHES_BEFORE_ADVICE // 2, waiting=3.0, working=1.0)
    assert logged.text == ""
