"""How much of the training time is waiting for data, on a clock that the test sets."""

import logging

import pytest

from swin_lab.training import DataTimeMonitor
from swin_lab.training.callbacks import BATCHES_BEFORE_ADVICE


class Clock:
    """Stands until it is told to go on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("swin_lab.training.callbacks.perf_counter", made)
    return made


class Run:
    """Epochs in which so many batches are waited for and worked on for so many seconds."""

    def __init__(self, clock, readers=""):
        self.clock = clock
        self.waited = 0.0
        self.wait = DataTimeMonitor(lambda: self.waited, readers)

    def epoch(self, batches, waiting, working):
        for index in range(batches):
            self.clock.now += 1000.0 if index == 0 else waiting  # before the first one workers start, which does not count
            self.waited += 0.0 if index == 0 else waiting
            self.wait.on_train_batch_start(None, None, None, index)
            self.clock.now += working
            self.wait.on_train_batch_end(None, None, None, None, index)
        return self


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("swin_lab"), "propagate", True)
    caplog.set_level(logging.WARNING, "swin_lab")
    return caplog


def test_before_any_batch_there_is_no_share():
    assert DataTimeMonitor().share is None


def test_the_share_is_waiting_over_all_the_time_from_the_first_batch_to_the_last(clock):
    assert Run(clock).epoch(11, waiting=1.0, working=3.0).wait.share == pytest.approx(10 / 43)


def test_the_time_between_epochs_does_not_count(clock):
    run = Run(clock)
    for _ in range(3):
        run.epoch(11, waiting=1.0, working=3.0)
        clock.now += 500.0  # an evaluation
    assert run.wait.share == pytest.approx(10 / 43)


def test_what_others_do_between_batches_is_no_waiting(clock):
    """A progress bar that waits for the GPU, a checkpoint: the loader alone says how long it was waited for."""
    run = Run(clock)
    for index in range(5):
        run.wait.on_train_batch_start(None, None, None, index)
        clock.now += 1.0
        run.wait.on_train_batch_end(None, None, None, None, index)
        clock.now += 100.0
    assert run.wait.share == 0.0


def test_much_waiting_is_told_once_with_advice(clock, said):
    Run(clock, "4 workers, 8 cores").epoch(3 * BATCHES_BEFORE_ADVICE, waiting=3.0, working=1.0)
    assert said.text.count("of the training time is waiting for data") == 1
    assert "75% of the training time is waiting for data (4 workers, 8 cores): set data.num_workers" in said.text
    assert "swin-lab data pack" in said.text


def test_little_waiting_is_not_told(clock, said):
    Run(clock).epoch(3 * BATCHES_BEFORE_ADVICE, waiting=1.0, working=4.0)
    assert said.text == ""


def test_a_short_run_is_given_no_advice(clock, said):
    Run(clock).epoch(BATCHES_BEFORE_ADVICE // 2, waiting=3.0, working=1.0)
    assert said.text == ""
