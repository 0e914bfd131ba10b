"""Training on real data, if it is available next to the project."""

import csv
from pathlib import Path

import pytest
from conftest import ROOT, Command, final_metrics, only_run

DATA = ROOT.parent / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="no CIFAR-10 parquet files next to the project")
def test_one_epoch_on_part_of_cifar10_learns(command: Command, tmp_path: Path) -> None:
    """After 16,000 images, the loss is lower and the top-1 accuracy on 1,600 test images is above 30%."""
    part = ["trainer.max_epochs=1", "trainer.limit_train_batches=500", "trainer.limit_val_batches=50"]
    quick = [
        "schedule.warmup_epochs=0.2",
        "data.num_workers=1",
        "data.cache_mib=0",
        "augment=none",
        "trainer.log_every_n_steps=1",
    ]
    assert command("train", "data=parquet", f"data.root={DATA / 'cifar10'}", *part, *quick, "name=cifar").code == 0
    run = only_run(tmp_path)
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert sum(losses[-50:]) / 50 < sum(losses[:50]) / 50 - 0.2
    assert final_metrics(run)["val/acc1"] > 0.3
