"""Training and evaluation on two processes of the CPU, which run the same code as two GPUs."""

import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, TINY, Command, final_metrics, only_run, recorded
from PIL import Image

from swin_lab.run.dump import read_dump

pytestmark = pytest.mark.slow

DDP = ["trainer=ddp", "trainer.devices=2"]
SPOIL = '''
from lightning import Callback

class Spoil(Callback):
    """Spoils an image of the second process before the sixth update."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (trainer.global_step, trainer.global_rank) == (5, 1):
            batch[0][3] = float("nan")
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains on two processes with an odd number of validation images (31)."""
    folder = tmp_path_factory.mktemp("ddp")
    arguments = [*TINY, *DDP, "trainer.accelerator=cpu", "data.val_images=31"]
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


def test_there_is_one_run_directory(trained: Path) -> None:
    assert len(list((trained / "runs" / "tiny").iterdir())) == 1
    assert sorted(entry.name for entry in trained.iterdir()) == ["output.txt", "runs"]


def test_each_image_is_counted_once(trained: Path) -> None:
    run = only_run(trained / "runs")
    record, predictions = recorded(run), pq.read_table(run / "predictions.parquet").to_pydict()
    assert (record["run.images"], record["hardware.processes"]) == (31, 2)
    assert predictions["index"] == list(range(31))
    right = [classes[0] == label for classes, label in zip(predictions["classes"], predictions["label"], strict=True)]
    assert sum(right) / 31 == pytest.approx(record["metrics.final.acc1"])


def test_the_split_of_the_global_batch_is_printed_once(trained: Path) -> None:
    assert (trained / "output.txt").read_text().count("16 = 2 devices x 8 images") == 1


def test_two_processes_train_like_one(trained: Path, command: Command, tmp_path: Path) -> None:
    """Every update has the same images, and drop path is off: losses after 8 updates differ by 1e-4 at most."""
    steady = [*TINY, "data.val_images=31", "model.drop_path_rate=0.0", "augment=none"]
    command("train", *steady, "name=one")
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *steady, *DDP, "trainer.accelerator=cpu", "name=two"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    one, two = (recorded(only_run(tmp_path / "runs" / name)) for name in ("one", "two"))
    assert one["run.updates"] == two["run.updates"]
    assert abs(one["metrics.final.loss"] - two["metrics.final.loss"]) < 1e-4


TASKS = {
    "several labels": ["task=multilabel", "data.several_labels=true"],
    "SimMIM": ["task=simmim", "task.mask_patch_size=8"],
    "distillation": ["task=distillation", "task.teacher=teacher", "task.kind=soft", "task.features=0.1"],
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_results_of_one_process(trained: Path, process: Command, tmp_path: Path, task: str) -> None:
    """Losses and metrics after 8 updates differ by 1e-4 at most; the processes have 16 and 15 validation images."""
    (tmp_path / "teacher").symlink_to(only_run(trained / "runs"))
    steady = [*TINY, "data.val_images=31", "model.drop_path_rate=0.0", "augment=none", *TASKS[task]]
    for name, more in (("one", []), ("two", DDP)):
        outcome = process("train", *steady, *more, f"out={name}")
        assert outcome.code == 0, outcome.printed
    one, two = (recorded(only_run(tmp_path / name)) for name in ("one", "two"))
    metrics = [name for name in one if name.startswith("metrics.final.")]
    assert "metrics.final.loss" in metrics
    assert {name: two[name] for name in metrics} == pytest.approx({name: one[name] for name in metrics}, abs=1e-4)
    pages = [pq.read_table(file).num_rows for file in tmp_path.glob("*/tiny/*/predictions.parquet")]
    assert set(pages) <= {31}


def test_a_process_whose_only_image_cannot_be_read_takes_part_in_the_metrics(process: Command, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(10):
        Image.new("RGB", (32, 32), (25 * i, 0, 0)).save(images / f"{i}.png")
    (images / "9.png").write_bytes(b"no image")
    for split, numbers in (("train", range(8)), ("val", (8, 9))):
        rows = [f"{i}.png,{i % 2},1" for i in numbers]
        (tmp_path / f"{split}.csv").write_text("\n".join(["file_name,odd,every", *rows]))
    words = [word for word in TINY if not word.startswith("data")]
    data = ["data=multilabel", "data.root=images", f"data.targets={tmp_path}/train.csv", f"data.val_targets={tmp_path}/val.csv"]
    outcome = process(
        "train", *words, *DDP, "task=multilabel", *data, "data.on_error=skip", "global_batch=4", "rank_timeout=30"
    )
    assert outcome.code == 0, outcome.printed
    assert recorded(only_run(tmp_path / "runs"))["run.images"] == 1


def test_evaluation_on_two_processes_equals_one(trained: Path, process: Command) -> None:
    run = only_run(trained / "runs")
    outcome = process("eval", f"checkpoint={run}", *DDP, "trainer.accelerator=cpu", f"out={trained}/two")
    assert outcome.code == 0, outcome.printed
    result = recorded(trained / "two")
    assert result["run.images"] == 31
    assert result["metrics.final.acc1"] == final_metrics(run)["val/acc1"]
    tables = [pq.read_table(folder / "predictions.parquet") for folder in (run, trained / "two")]
    assert tables[0].equals(tables[1])


def test_an_unreadable_image_in_one_process_ends_both_with_one_message(process: Command, tmp_path: Path) -> None:
    for label in ("blue", "red"):
        for split in ("train", "val"):
            (tmp_path / "set" / split / label).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (32, 32), label).save(tmp_path / "set" / split / label / f"{i}.jpg")
    broken = tmp_path / "set" / "train" / "red" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    overrides = [entry for entry in TINY if not entry.startswith("data")]
    outcome = process("train", *overrides, *DDP, "data=folder", f"data.root={tmp_path / 'set'}", "data.num_workers=0")
    assert outcome.code == 2, outcome.printed
    assert outcome.err.count(str(broken)) == 1
    assert "Traceback" not in outcome.err


def test_torchrun_starts_the_same_run(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    arguments = [*TINY, *DDP, "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    done = subprocess.run([*torchrun, str(ROOT / "train.py"), *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "runs" / "tiny").iterdir())) == 1
    assert recorded(only_run(tmp_path))["run.images"] == 30


def test_a_sweep_on_two_processes_makes_one_run_per_value(process: Command, tmp_path: Path) -> None:
    arguments = [*TINY[:-1], *DDP, "trainer.accelerator=cpu", "trainer.max_epochs=1", "seed=1,2"]
    outcome = process("train", "-m", *arguments)
    assert outcome.code == 0, outcome.printed
    assert len(list((tmp_path / "runs").rglob("results.json"))) == 2
    assert "seed=1" in outcome.out[outcome.out.index("Sweep") :]


def test_the_ema_and_the_initial_evaluation_are_those_of_one_process(
    trained: Path, process: Command, command: Command, tmp_path: Path
) -> None:
    """Mixing differs between processes; the EMA, the evaluations and the image counts do not."""
    first = only_run(trained / "runs")
    overrides = [*TINY, "data.val_images=31", f"weights={first}", "ema=warm", "mixing=imagenet", "trainer.max_epochs=1"]
    outcome = process("train", *overrides, *DDP)
    assert outcome.code == 0, outcome.printed
    run = only_run(tmp_path)
    result = recorded(run)
    before = final_metrics(first)
    assert result["metrics.initial.acc1"] == before["val/acc1"]
    assert outcome.out.count("initial    top-1") == 1
    assert command("eval", f"checkpoint={run}", "transfer.ema=true", "trainer.devices=1", "out=one").code == 0
    alone = recorded(tmp_path / "one")
    assert (alone["run.images"], alone["metrics.final.acc1"]) == (31, result["metrics.final_ema.acc1"])
    assert alone["metrics.final.loss"] == pytest.approx(result["metrics.final_ema.loss"], rel=1e-6)


def test_a_bad_loss_in_one_process_is_decided_by_both(process: Command, tmp_path: Path) -> None:
    """With `skip` both leave the update out and go on; with `raise` both end, with one message."""
    (tmp_path / "spoil.py").write_text(SPOIL)
    words = [*TINY, *DDP, "ema=warm", "data.num_workers=0", "+callbacks.spoil={_target_: spoil.Spoil}"]
    skipped = process("train", *words, "on_nonfinite=skip", "out=skip")
    assert skipped.code == 0, skipped.printed
    result = recorded(only_run(tmp_path / "skip"))
    assert (result["run.updates"], result["run.skipped_updates"]) == (8, 1)
    assert skipped.out.count("is skipped") == 1
    raised = process("train", *words, "out=raise")
    assert raised.code == 2, raised.printed
    assert (raised.err.count("error: "), "Traceback" in raised.err) == (1, False)
    assert "the training loss is NaN or infinite at update 6 (epoch 2); images: " in raised.err
    (run,) = (tmp_path / "raise" / "tiny").iterdir()
    _, facts, (batch,) = read_dump(str(run / "nonfinite_6.pt"))
    assert (facts.processes, batch.process, len(batch.names)) == (2, 1, 8)
