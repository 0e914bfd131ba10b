"""The losses of 20 updates, as they were when they were last right: guards everything between an image and an update.

`pytest tests/run/test_golden_loss.py --update-golden` writes the file anew, for a change that is meant to change numbers.
"""

import csv
from pathlib import Path

import pytest
from conftest import ROOT, TINY, Command, only_run

GOLDEN = ROOT / "tests" / "golden" / "loss_20_steps.txt"


def test_the_losses_of_20_updates_are_the_golden_ones(command: Command, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Within 1e-4 of each other: processors and releases of torch sum in different orders."""
    fixed = ["seed=42", "augment=none", "trainer.max_epochs=5", "trainer.log_every_n_steps=1", "model.drop_path_rate=0.2"]
    assert command("train", *TINY, *fixed).code == 0
    with (only_run(tmp_path) / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 20
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text("".join(f"{loss:.6f}\n" for loss in losses))
    assert losses == pytest.approx([float(line) for line in GOLDEN.read_text().split()], abs=1e-4)
