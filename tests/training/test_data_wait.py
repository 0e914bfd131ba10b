"""How much of the training time is waiting for data, on a clock that the test sets."""

import logging

import pytest

from swin_lab.training import DataWait
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


def train(wait, clock, batches, waiting, working, first=0):
    """So many batches of an epoch, each waited for and worked on for so many seconds."""
    for index in range(first, first + batches):
        clock.now += waiting
        wait.on_train_batch_start(None, None, None, index)
        clock.now += working
        wait.on_train_batch_end(None, None, None, None, index)


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("swin_lab"), "propagate", True)
    caplog.set_level(logging.WARNING, "swin_lab")
    return caplog


def test_before_any_batch_there_is_no_share():
    assert DataWait().share is None


def test_the_share_is_waiting_over_all(clock):
    wait = DataWait()
    train(wait, clock, 11, waiting=1.0, working=3.0)
    assert wait.share == pytest.approx(0.25)


def test_the_first_batch_of_an_epoch_does_not_count_because_workers_start_before_it(clock):
    wait = DataWait()
    for _ in range(3):
        train(wait, clock, 1, waiting=1000.0, working=3.0)
        train(wait, clock, 5, waiting=1.0, working=3.0, first=1)
    assert wait.share == pytest.approx(0.25)


def test_much_waiting_is_told_once_with_advice(clock, said):
    wait = DataWait("4 workers, 8 cores")
    train(wait, clock, 3 * BATCHES_BEFORE_ADVICE, waiting=3.0, working=1.0)
    assert said.text.count("of the training time is waiting for data") == 1
    assert "75% of the training time is waiting for data (4 workers, 8 cores): set data.num_workers" in said.text
    assert "swin-lab data pack" in said.text


def test_little_waiting_is_not_told(clock, said):
    train(DataWait(), clock, 3 * BATCHES_BEFORE_ADVICE, waiting=1.0, working=4.0)
    assert said.text == ""


def test_a_short_run_is_given_no_advice(clock, said):
    train(DataWait(), clock, BATCHES_BEFORE_ADVICE // 2, waiting=3.0, working=1.0)
    assert said.text == ""
