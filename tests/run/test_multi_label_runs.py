"""Runs with several labels per image: training, thresholds in checkpoints, evaluation, prediction, and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TINY, Command, only_run
from PIL import Image
from sklearn.metrics import average_precision_score

from swin_lab import Predictor, load_model
from swin_lab.data import Synthetic
from swin_lab.metadata import METADATA_KEY
from swin_lab.run.thresholds import with_thresholds
from swin_lab.tasks.multi_label_metrics import best_thresholds

SOURCE = Synthetic(num_classes=6, train_images=64, val_images=30, several_labels=True)
MULTI = [*TINY, "task=multilabel", "data.num_workers=0"]
ON_FILES = [entry for entry in MULTI if not entry.startswith("data")]


def write_images(folder: Path) -> None:
    """Writes the synthetic images as files, with their labels in train.csv and val.csv."""
    for split, images in (("train", SOURCE.train), ("val", SOURCE.val)):
        (folder / split).mkdir(parents=True)
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", *SOURCE.class_names])
            for i, labels in enumerate(images.labels.tolist()):
                Image.fromarray(images.encoded(i)).save(folder / split / f"{i:03d}.png")
                rows.writerow([f"{split}/{i:03d}.png", *labels])


@pytest.fixture(scope="module")
def run(run_script: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a training, for tests that only read it; its images are in the folder `images` beside `runs`."""
    folder = tmp_path_factory.mktemp("multilabel")
    write_images(folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = ["data=multilabel", f"data.root={folder / 'images'}", "data.targets=train.csv", "data.val_targets=val.csv"]
        outcome = run_script("train", *ON_FILES, *data, "data.num_workers=0", "mixing=imagenet", "mixing.prob=0.5")
    assert outcome.code == 0, outcome.err
    assert "mAP" in outcome.out
    return only_run(folder).resolve()


def metadata(file: Path) -> dict:
    found: dict = torch.load(file, weights_only=True)[METADATA_KEY]
    return found


def record(folder: Path) -> dict:
    found: dict = json.loads((folder / "results.json").read_text())
    return found


@pytest.fixture(scope="module")
def evaluated(run: Path, run_script: Command) -> Path:
    """The directory of an evaluation of that run, which names neither task nor data."""
    outcome = run_script("eval", f"checkpoint={run}", f"out={run.parent / 'evaluated'}")
    assert outcome.code == 0, outcome.err
    assert "Average precision per class" in outcome.out
    return run.parent / "evaluated"


def write_parquet(folder: Path) -> list[str]:
    """Writes the same images as parquet files with a list column of class names, and returns the overrides for them."""
    for split, images in (("train", SOURCE.train), ("val", SOURCE.val)):
        files = sorted((folder / split).iterdir())
        names = [[SOURCE.class_names[c] for c in np.flatnonzero(labels)] for labels in images.labels]
        contents = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
        pq.write_table(pa.table({"image": contents, "tags": names}), f"{split}.parquet")
    return ["data=parquet", "data.root=.", "data.label_column=tags"]


def write_dataset(folder: Path) -> list[str]:
    """Writes a map-style dataset of the same images, and returns the overrides for it."""
    Path("tagged_images.py").write_text(
        "import csv, numpy as np\nfrom PIL import Image\nclass Tagged:\n"
        "    def __init__(self, folder, split):\n"
        "        self.folder = folder\n"
        "        self.classes, *self.rows = [row[1:] for row in csv.reader(open(f'{folder}/{split}.csv'))]\n"
        "        self.names = [row[0] for row in csv.reader(open(f'{folder}/{split}.csv'))][1:]\n"
        "    def __len__(self): return len(self.rows)\n"
        "    def __getitem__(self, i):\n"
        "        return Image.open(f'{self.folder}/{self.names[i]}').convert('RGB'), np.array(self.rows[i], dtype=int)\n"
    )
    node = "{{_target_: tagged_images.Tagged, folder: {0}, split: {1}}}"
    return ["data=dataset", *(f"data.{split}={node.format(folder, split)}" for split in ("train", "val"))]


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_parquet, write_dataset], ids=["lists in parquet files", "a dataset of torch"])
def test_other_sources_of_the_same_images_give_the_same_run(
    run: Path, command: Command, tmp_path: Path, write: Callable[[Path], list[str]]
) -> None:
    data = write(run.parents[2] / "images")
    outcome = command("train", *ON_FILES, *data, "data.num_workers=0", "mixing=imagenet", "mixing.prob=0.5")
    assert outcome.code == 0, outcome.err
    other = only_run(tmp_path)
    names, stored = (
        [metadata(folder / "checkpoints" / "best.ckpt")[key] for folder in (other, run)]
        for key in ("class_names", "thresholds")
    )
    assert names[0] == names[1]
    assert stored[0] == stored[1]
    for name in ("map", "f1", "f1_tuned", "loss"):
        assert record(other)[f"metrics.final.{name}"] == record(run)[f"metrics.final.{name}"]


def test_with_an_ema_thresholds_are_those_of_its_weights(command: Command, tmp_path: Path) -> None:
    words = [*MULTI, "data.several_labels=true", "ema=warm", "trainer.max_epochs=1"]
    assert command("train", *words).code == 0
    trained, best = only_run(tmp_path), {}
    for ema in ("true", "false"):
        assert command("eval", f"checkpoint={trained}", f"transfer.ema={ema}", f"out=ema_{ema}").code == 0
        table = pq.read_table(tmp_path / f"ema_{ema}" / "predictions.parquet")
        probabilities, labels = (torch.tensor(table[name].to_pylist()) for name in ("probabilities", "labels"))
        best[ema] = best_thresholds(probabilities, labels.long()).tolist()
    stored = metadata(trained / "checkpoints" / "last.ckpt")["thresholds"]
    assert stored == pytest.approx(best["true"], abs=1e-6)
    assert stored != pytest.approx(best["false"], abs=1e-3)


def test_the_record_of_an_evaluation_has_a_row_for_each_class(evaluated: Path) -> None:
    values = record(evaluated)
    assert values["derived.task"] == "MultiLabelClassification"
    assert sorted(values["per_class.class"]) == SOURCE.class_names
    assert np.mean(values["per_class.ap"]) == pytest.approx(values["metrics.final.map"], abs=1e-6)
    assert (evaluated / "predictions.png").is_file()


def test_checkpoints_contain_thresholds_which_an_evaluation_uses(run: Path, evaluated: Path) -> None:
    values = record(evaluated)
    found = dict(zip(values["per_class.class"], values["per_class.threshold"], strict=True))
    stored = metadata(run / "checkpoints" / "best.ckpt")["thresholds"]
    assert stored == pytest.approx([found[name] for name in SOURCE.class_names], abs=1e-6)
    assert len(metadata(run / "checkpoints" / "last.ckpt")["thresholds"]) == 6


def test_an_evaluation_on_other_images_keeps_the_thresholds(run: Path, command: Command, tmp_path: Path) -> None:
    """The best thresholds of the training images are others."""
    data = ["data=multilabel", f"data.root={run.parents[2] / 'images'}", "data.targets=val.csv", "data.val_targets=train.csv"]
    outcome = command("eval", f"checkpoint={run}", *data, f"out={tmp_path / 'other'}")
    assert outcome.code == 0, outcome.err
    values = record(tmp_path / "other")
    used = dict(zip(values["per_class.class"], values["per_class.threshold"], strict=True))
    stored = metadata(run / "checkpoints" / "best.ckpt")["thresholds"]
    assert [used[name] for name in SOURCE.class_names] == pytest.approx(stored, abs=1e-6)
    table = pq.read_table(tmp_path / "other" / "predictions.parquet")
    probabilities, labels = (torch.tensor(table[name].to_pylist()) for name in ("probabilities", "labels"))
    assert best_thresholds(probabilities, labels.long()).tolist() != pytest.approx(stored, abs=1e-3)


def test_an_evaluation_repeats_the_metrics_of_the_run(run: Path, evaluated: Path) -> None:
    again, before = record(evaluated), record(run)
    assert before["metrics.final.f1_tuned"] >= before["metrics.final.f1"]
    for name in ("map", "f1", "f1_tuned", "loss"):
        assert again[f"metrics.final.{name}"] == pytest.approx(before[f"metrics.final.{name}"], abs=1e-6)


def test_predictions_of_an_evaluation_have_all_labels_and_probabilities(run: Path) -> None:
    table = pq.read_table(run / "predictions.parquet")
    assert table.column_names == ["index", "path", "labels", "probabilities"]
    assert table["labels"].to_pylist() == SOURCE.val.labels.tolist()


@pytest.mark.parametrize("ending", ["json", "csv", "parquet"])
def test_predict_gives_all_labels_above_their_thresholds(cli: Command, run: Path, tmp_path: Path, ending: str) -> None:
    images = run.parents[2] / "images" / "val"
    file = tmp_path / f"out.{ending}"
    assert cli("predict", run, images, "-o", file, "--workers", 0).code == 0
    if ending == "csv":
        with file.open(newline="") as opened:
            rows = [row["classes"].split("|") if row["classes"] else [] for row in csv.DictReader(opened)]
    else:
        table = json.loads(file.read_text()) if ending == "json" else pq.read_table(file).to_pylist()
        assert all(len(row["classes"]) == len(row["probabilities"]) for row in table)
        rows = [row["classes"] for row in table]
    thresholds = metadata(run / "checkpoints" / "best.ckpt")["thresholds"]
    probabilities = pq.read_table(run / "predictions.parquet")["probabilities"].to_pylist()
    expected = [
        {name for name, p, limit in zip(SOURCE.class_names, row, thresholds, strict=True) if p > limit} for row in probabilities
    ]
    assert [set(row) for row in rows] == expected


def test_predict_prints_a_line_for_each_label_and_at_most_as_many_as_wanted(cli: Command, run: Path) -> None:
    images = [run.parents[2] / "images" / "val" / f"{i:03d}.png" for i in range(8)]
    labels = [len(prediction.names) for prediction in Predictor(str(run))(images)]
    image = images[labels.index(max(labels))]
    everything, one = cli("predict", run, image, "--workers", 0), cli("predict", run, image, "--top", 1, "--workers", 0)
    assert one.code == everything.code == 0
    assert max(labels) > 1
    assert everything.out.count("pattern") == max(labels)
    assert one.out.count("pattern") == 1


def test_weights_in_other_files_keep_the_thresholds(cli: Command, run: Path, tmp_path: Path) -> None:
    assert cli("convert", run, tmp_path / "weights.safetensors").code == 0
    images = [run.parents[2] / "images" / "val" / f"{i:03d}.png" for i in range(4)]
    assert load_model(tmp_path / "weights.safetensors").thresholds is not None
    assert Predictor(str(tmp_path / "weights.safetensors"))(images) == Predictor(str(run))(images)


def test_a_folder_for_transformers_says_that_images_have_several_labels(cli: Command, run: Path) -> None:
    assert cli("convert", run, "folder", "--layout", "huggingface").code == 0
    assert json.loads(Path("folder/config.json").read_text())["problem_type"] == "multi_label_classification"


def test_a_file_that_cannot_contain_thresholds_is_written_with_a_note(cli: Command, run: Path) -> None:
    outcome = cli("convert", run, "weights.pth", "--layout", "official")
    assert outcome.code == 0, outcome.err
    assert "not in this file: class names, preprocessing, thresholds; a .safetensors file has them" in " ".join(
        outcome.out.split()
    )


def test_weights_in_other_files_are_evaluated_without_naming_the_task(
    command: Command, cli: Command, run: Path, tmp_path: Path
) -> None:
    assert cli("convert", run, tmp_path / "weights.safetensors").code == 0
    data = ["data=multilabel", f"data.root={run.parents[2] / 'images'}", "data.targets=train.csv", "data.val_targets=val.csv"]
    given = [f"checkpoint={tmp_path / 'weights.safetensors'}", *data, "data.val_only=true", f"out={tmp_path / 'out'}"]
    outcome = command("eval", *given)
    assert outcome.code == 0, outcome.err
    assert record(tmp_path / "out")["metrics.final.map"] == pytest.approx(record(run)["metrics.final.map"], abs=1e-6)


@pytest.mark.parametrize(
    ("node", "given"),
    [
        ({"_target_": "swin_lab.tasks.MultiLabelClassification"}, True),
        ({"_target_": "my_tasks.Own", "thresholds": None}, True),
        ({"_target_": "my_tasks.Own", "thresholds": [0.1, 0.2]}, False),
        ({"_target_": "swin_lab.tasks.Classification"}, False),
    ],
    ids=["the task", "a subclass", "thresholds of the user", "a task without thresholds"],
)
def test_stored_thresholds_are_given_to_every_task_that_takes_them(node: dict[str, Any], given: bool) -> None:
    contents = SimpleNamespace(metadata=SimpleNamespace(class_names=["a", "b"], thresholds=[0.3, 0.7]))
    assert with_thresholds(node, contents, ["b", "a"]) == (node | {"thresholds": [0.7, 0.3]} if given else node)


def test_a_resumed_run_keeps_the_thresholds_until_its_next_evaluation(command: Command, tmp_path: Path) -> None:
    several = [*MULTI, "data.several_labels=true", "trainer.max_epochs=2", "checkpoint.every_n_updates=1"]
    Path("stop_multi_label.py").write_text(
        "import os, signal\nfrom lightning import Callback\nclass Stop(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step in (5, 6): os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert command("train", *several, "+callbacks.stop={_target_: stop_multi_label.Stop}").code == 75
    first = metadata(only_run(tmp_path) / "checkpoints" / "last.ckpt")["thresholds"]
    assert first != [0.5] * 6
    assert command("train", f"resume={only_run(tmp_path)}").code == 75
    assert metadata(only_run(tmp_path) / "checkpoints" / "last.ckpt")["thresholds"] == first


@pytest.mark.parametrize("cache", [["data.cache=device"], ["data.cache_mib=0", "data.num_workers=2"]])
def test_every_way_to_load_images_gives_the_same_losses(command: Command, tmp_path: Path, cache: list[str]) -> None:
    losses = []
    for name, more in (("one", []), ("other", cache)):
        changed = [entry for entry in MULTI if not entry.startswith("name=")]
        outcome = command(
            "train", *changed, "data.several_labels=true", "augment=none", "trainer.max_epochs=1", f"name={name}", *more
        )
        assert outcome.code == 0, outcome.err
        losses.append(record(only_run(tmp_path / "runs" / name))["metrics.final.loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["task=multilabel"], "task=multilabel needs data with several labels per image"),
        (["data.several_labels=true"], "task=classification learns one; choose task=multilabel"),
    ],
)
def test_data_of_the_other_kind_is_refused(command: Command, given: list[str], message: str) -> None:
    outcome = command("train", *TINY, *given)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) <= 3


def test_a_single_label_is_learned_and_stored_with_its_threshold(
    run: Path, command: Command, cli: Command, tmp_path: Path
) -> None:
    images = run.parents[2] / "images"
    for split, labels in (("train", SOURCE.train.labels), ("val", SOURCE.val.labels)):
        rows = [f"{split}/{i:03d}.png,{row[0]}" for i, row in enumerate(labels.tolist())]
        Path(f"{split}.csv").write_text("\n".join(["file_name,wet", *rows]))
    data = [f"data.{key}={tmp_path / file}" for key, file in (("targets", "train.csv"), ("val_targets", "val.csv"))]
    outcome = command("train", *ON_FILES, "data=multilabel", f"data.root={images}", *data, "data.num_workers=0", "out=one")
    assert outcome.code == 0, outcome.err
    found = only_run(tmp_path / "one")
    (threshold,) = metadata(found / "checkpoints" / "best.ckpt")["thresholds"]
    assert command("eval", f"checkpoint={found}", "out=evaluated").code == 0
    assert record(tmp_path / "evaluated")["per_class.threshold"] == pytest.approx([threshold], abs=1e-6)
    table = pq.read_table(tmp_path / "evaluated" / "predictions.parquet")
    expected = average_precision_score(SOURCE.val.labels[:, 0], [row[0] for row in table["probabilities"].to_pylist()])
    assert record(found)["metrics.final.map"] == pytest.approx(expected, abs=1e-6)
    assert cli("predict", found, images / "val" / "000.png", "--workers", 0).code == 0


def test_data_check_counts_labels_and_data_pack_refuses_them(cli: Command, run: Path) -> None:
    data = ["data=multilabel", f"data.root={run.parents[2] / 'images'}", "data.targets=train.csv", "data.val_targets=val.csv"]
    checked = cli("data", "check", *data)
    assert checked.code == 0, checked.err
    packed = cli("data", "pack", *data, "--out", "shards")
    assert packed.code == 2
    assert "these images have several labels" in packed.err


def test_balanced_sampling_by_one_class_is_refused(command: Command) -> None:
    outcome = command("train", *MULTI, "data.several_labels=true", "data.class_balance=0.5")
    assert outcome.code == 2
    assert "data.class_balance=0.5 needs one class per image" in outcome.err


def test_a_checkpoint_has_the_weights_that_were_computed_of_the_training_images(command: Command, tmp_path: Path) -> None:
    """An evaluation and a replay, which have other images or none, need nothing else."""
    words = [*MULTI, "data.several_labels=true", "task.class_weights=balanced", "trainer.max_epochs=1"]
    assert command("train", *words).code == 0
    found = only_run(tmp_path)
    weights = metadata(found / "checkpoints" / "best.ckpt")["run"]["config"]["task"]["class_weights"]
    assert len(weights) == len(SOURCE.class_names)
    assert all(weight > 0 for weight in weights)
    assert record(found)["config.task.class_weights"] == "balanced"
    assert command("eval", f"checkpoint={found}").code == 0


def test_it_is_no_teacher_of_one_class_per_image(command: Command, run: Path) -> None:
    outcome = command("train", *TINY, "task=distillation", f"task.teacher={run}")
    assert outcome.code == 2
    assert "it was trained by MultiLabelClassification, whose outputs are not classes" in outcome.err
