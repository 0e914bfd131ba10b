"""The lines within an epoch and within an evaluation of a run without a terminal, on a simulated clock."""

import logging
from types import SimpleNamespace

import pytest
import torch

from swin_lab.training import ProgressLines

BATCH = (torch.empty(8, 3, 1, 1),)


class Run:
    """Calls the hooks of a run of 2 epochs with 100 batches of 8 images, and of evaluations with 50 batches."""

    def __init__(self, seconds_per_batch: float, processes: int = 1) -> None:
        self.now = 1000.0
        self.seconds = seconds_per_batch
        self.lines = ProgressLines()
        self.trainer = SimpleNamespace(
            world_size=processes,
            global_step=0,
            current_epoch=0,
            estimated_stepping_batches=200,
            num_training_batches=100,
            num_val_batches=[50],
        )

    def train(self, batches: int, evaluate_after: int | None = None) -> None:
        self.lines.on_train_epoch_start(self.trainer, None)
        for index in range(batches):
            self.now += self.seconds
            self.trainer.global_step += 1
            self.lines.on_train_batch_end(self.trainer, None, None, BATCH, index)
            if index == evaluate_after:
                self.evaluate()

    def evaluate(self) -> None:
        self.lines.on_validation_epoch_start(self.trainer, None)
        for index in range(50):
            self.now += self.seconds
            self.lines.on_validation_batch_end(self.trainer, None, None, BATCH, index)
        self.lines.on_validation_epoch_end(self.trainer, None)


@pytest.fixture
def start(monkeypatch, caplog):
    """Returns a function that starts a run, and one that returns the lines that it has logged."""
    monkeypatch.setattr(logging.getLogger("swin_lab"), "propagate", True)
    caplog.set_level(logging.INFO, "swin_lab")

    def begin(**options):
        run = Run(**options)
        monkeypatch.setattr("swin_lab.training.callbacks.perf_counter", lambda: run.now)
        run.lines.on_train_start(run.trainer, None)
        return run, lambda: [record.getMessage() for record in caplog.records]

    return begin


def test_every_30_seconds_of_training_a_line_tells_speed_and_time_left(start):
    """Of 200 updates of a second, 30 are done: 170 s are left."""
    run, lines = start(seconds_per_batch=1.0)
    run.train(100)
    assert lines() == [
        "epoch   1  batch 30/100  8 images/s  2:50 left",
        "epoch   1  batch 60/100  8 images/s  2:20 left",
        "epoch   1  batch 90/100  8 images/s  1:50 left",
    ]


def test_an_evaluation_has_lines_of_its_own(start):
    run, lines = start(seconds_per_batch=2.0)
    run.evaluate()
    assert lines()[0] == "evaluation  batch 15/50  4 images/s  1:10 left"
    assert len(lines()) == 3


def test_epochs_and_evaluations_of_less_than_30_seconds_have_no_line(start):
    run, lines = start(seconds_per_batch=0.29)
    run.train(100)
    run.evaluate()
    assert lines() == []


def test_images_of_all_processes_count(start):
    run, lines = start(seconds_per_batch=1.0, processes=4)
    run.train(30)
    assert lines() == ["epoch   1  batch 30/100  32 images/s  2:50 left"]


def test_an_evaluation_within_an_epoch_does_not_lower_the_speed(start):
    run, lines = start(seconds_per_batch=1.0)
    run.train(60, evaluate_after=15)
    training = [line for line in lines() if line.startswith("epoch")]
    assert len(training) == 1
    assert "batch 46/100  8 images/s" in training[0]


def test_before_the_first_update_the_time_left_is_not_known(start):
    run, lines = start(seconds_per_batch=40.0)
    run.now += 40
    run.lines.on_train_batch_end(run.trainer, None, None, BATCH, 0)
    assert lines()[0].endswith("images/s")
