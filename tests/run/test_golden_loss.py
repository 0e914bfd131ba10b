"""The losses of 20 updates equal stored values: a change anywhere between image and update shows here.

`pytest tests/run/test_golden_loss.py --update-golden` rewrites the file after an intended change of numbers.
"""

import csv
from pathlib import Path

import pytest
from conftest import ROOT, TINY, Command, only_run

GOLDEN = ROOT / "tests" / "golden" / "loss_20_steps.txt"


def test_the_losses_of_20_updates_equal_the_golden_file(
    command: Command, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The tolerance is 1e-4, because processors and releases of torch sum in different orders.

    Besides the code, the losses depend on the random numbers of torch on the CPU and of numpy, which are the same in both
    releases tested. Measured on one Intel processor with torch 2.11.0 (numpy 1.26.0) and 2.14.1 (numpy 2.4.6), with 1 and 2
    threads, and with AVX512, AVX2 and no vector instructions: at most 4.7e-7 apart; the file is rounded to 5e-7.
    """
    fixed = ["seed=42", "augment=none", "trainer.max_epochs=5", "trainer.log_every_n_steps=1", "model.drop_path_rate=0.2"]
    assert command("train", *TINY, *fixed).code == 0
    with (only_run(tmp_path) / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 20
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text("".join(f"{loss:.6f}\n" for loss in losses))
    assert losses == pytest.approx([float(line) for line in GOLDEN.read_text().split()], abs=1e-4)
