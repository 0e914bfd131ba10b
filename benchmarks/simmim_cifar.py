"""Compares fine-tuning after SimMIM with training from scratch, on CIFAR-10 with few labels.

    python benchmarks/simmim_cifar.py FOLDER [OVERRIDE...] [--labels 1000] [--seeds 3] [--pretraining-images 50000]
        [--pretraining-epochs 20] [--fine-tuning-epochs 30] [--test-images 10000] [--out runs/simmim_cifar]

FOLDER has the parquet files of CIFAR-10. The network of the worked example is pre-trained without labels; then both start with
the same recipe and the same labelled images, once per seed. Overrides are those of train.py for all runs. It prints the masked
loss of the test images after the first and the last epoch of the pre-training, and top-1 on them for each seed, and writes both
to OUT/result.json. A run whose results exist is not repeated. All runs are computed by one thread.
"""

import argparse
import csv
import json
import os
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from swin_lab.record import find_records, is_finished, read_record
from swin_lab.run.entry import main as run_command

CELL = 8
COMMON = [
    "data=parquet",
    "data.num_workers=0",
    "data.mean=[0.4914,0.4822,0.4465]",
    "data.std=[0.2470,0.2435,0.2616]",
    "model=swin_micro_patch4_window4_32",
    "trainer.accelerator=cpu",
    "precision=bf16-mixed",
    "optimizer.reference_batch=64",
    "global_batch=64",
]


def subset(table: pa.Table, count: int) -> pa.Table:
    """Returns the first images of each class, equally many of each."""
    classes = pc.unique(table["label"]).sort()
    indices = [row for label in classes for row in pc.indices_nonzero(pc.equal(table["label"], label))[: count // len(classes)]]
    return table.take(pa.array(sorted(index.as_py() for index in indices)))


def write_folder(source: Path, folder: Path, train: int, test: int) -> Path:
    """Writes a folder of parquet files with the first images of each class; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        file = folder / f"{split}-00000-of-00001.parquet"
        if not file.exists():
            table = pa.concat_tables([pq.read_table(part) for part in sorted(source.glob(f"{split}-*.parquet"))])
            pq.write_table(subset(table, min(count, len(table))), file)
    return folder


def run_once(out: Path, overrides: list[str]) -> Path:
    """Runs train.py, unless it has results; returns the run directory."""
    if not [run for run in find_records(out) if is_finished(run)]:
        code = run_command("train", [*COMMON, *overrides, f"out={out}", "name=run"])
        if code != 0:
            raise SystemExit(code)
    return next(run for run in find_records(out) if is_finished(run))


def metrics_of(run: Path) -> dict[str, float]:
    prefix = "metrics.final."
    return {name.removeprefix(prefix): value for name, value in read_record(run).items() if name.startswith(prefix)}


def masked_losses(run: Path) -> list[float]:
    """Returns the masked loss of the validation images after every epoch."""
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")]


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Runs everything and returns the results."""
    out = options.out.absolute()
    few = write_folder(options.folder, out / "labelled", options.labels, options.test_images)
    many = write_folder(options.folder, out / "unlabelled", options.pretraining_images, options.test_images)
    pretraining = [*options.overrides, "task=simmim", f"task.mask_patch_size={CELL}", "augment=simmim", f"data.root={many}"]
    pretraining += [f"trainer.max_epochs={options.pretraining_epochs}", "schedule.warmup_epochs=1"]
    pretrained = run_once(out / "pretraining", pretraining)
    losses = masked_losses(pretrained)
    fine_tuning = [*options.overrides, f"data.root={few}", "augment=crop", "schedule.warmup_epochs=2"]
    epochs = options.fine_tuning_epochs
    fine_tuning += [f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={epochs}"]
    top1: dict[str, list[float]] = {"from scratch": [], "after SimMIM": []}
    for seed in range(options.seeds):
        for name, more in (("from scratch", []), ("after SimMIM", [f"weights={pretrained}"])):
            folder = out / f"{name.replace(' ', '_')}_{seed}"
            run = run_once(folder, [*fine_tuning, *more, f"seed={seed}"])
            top1[name].append(metrics_of(run)["acc1"])
    return {"options": {key: str(value) for key, value in vars(options).items()}, "masked loss": losses, "top-1": top1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretraining-images", type=int, default=50_000)
    parser.add_argument("--pretraining-epochs", type=int, default=20)
    parser.add_argument("--fine-tuning-epochs", type=int, default=30)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("runs/simmim_cifar"))
    options = parser.parse_args()
    result = compare(options)
    losses = result["masked loss"]
    print(f"masked loss of the test images: {losses[0]:.4f} after the first epoch, {losses[-1]:.4f} after the last")
    for name, values in result["top-1"].items():
        spread = f" ± {stdev(values):.2%}" if len(values) > 1 else ""
        print(f"{name}: top-1 {mean(values):.2%}{spread} ({', '.join(f'{value:.2%}' for value in values)})")
    (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
