"""`checkpoint.every_n_updates` and `checkpoint.every_minutes`, seen in the last.ckpt of a run that ends without a warning."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, only_run

import swin_lab.training.checkpointing as checkpointing

FAILING = """
from lightning import Callback

class Fail(Callback):
    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == 8:
            raise ZeroDivisionError("stands for a crash, between two checkpoints")
"""
"""Fails after update 8 of an epoch of updates 4 to 11."""


@pytest.mark.parametrize(
    ("overrides", "minutes_per_look", "saved"),
    [
        (["checkpoint.every_n_updates=null", "checkpoint.every_minutes=null"], 1.0, 4),
        (["checkpoint.every_n_updates=3", "checkpoint.every_minutes=null"], 0.0, 6),
        (["checkpoint.every_n_updates=null", "checkpoint.every_minutes=0.5"], 1.0, 7),
        (["checkpoint.every_n_updates=null", "checkpoint.every_minutes=60"], 1.0, 4),
    ],
    ids=["epochs alone", "every 3 updates", "the interval of minutes is over", "it is not over"],
)
def test_a_run_that_crashes_has_the_checkpoint_of_the_last_interval(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    minutes_per_look: float,
    saved: int,
) -> None:
    """An epoch has 4 updates, so that an epoch ends at update 4, and the crash comes 4 updates later."""
    (tmp_path / "failing.py").write_text(FAILING)
    looks = [0.0]

    def clock() -> float:
        looks[0] += 60 * minutes_per_look
        return looks[0]

    monkeypatch.setattr(checkpointing, "monotonic", clock)
    with pytest.raises(ZeroDivisionError, match="stands for a crash"):
        command("train", *TINY, *overrides, "+callbacks.fail._target_=failing.Fail")
    last = torch.load(only_run(tmp_path) / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == saved
