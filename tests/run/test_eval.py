"""eval.py on checkpoints of train.py."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from conftest import TINY, Command, final_metrics, only_run
from PIL import Image
from torchmetrics.functional.classification import binary_calibration_error


def results_of(run: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(run.glob("eval_*/results.json"))]


def test_eval_gives_exactly_the_metrics_of_training(command: Command, trained: Path) -> None:
    assert command("eval", f"checkpoint={trained}").code == 0
    assert final_metrics(results_of(trained)[0]) == final_metrics(trained)


def test_a_checkpoint_file_can_be_evaluated_without_its_run_directory(command: Command, trained: Path, tmp_path: Path) -> None:
    expected = final_metrics(trained)
    shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    shutil.rmtree(tmp_path / "runs")
    assert command("eval", "checkpoint=alone.ckpt", "out=here").code == 0
    assert final_metrics(tmp_path / "here") == expected


def test_accuracy_does_not_depend_on_the_batch(command: Command, trained: Path) -> None:
    for batch in (1, 7):
        command("eval", f"checkpoint={trained}", f"batch={batch}", f"out={trained}/eval_{batch}")
    first, second = results_of(trained)
    assert first["metrics.final.acc1"] == second["metrics.final.acc1"]
    assert first["run.images"] == second["run.images"] == 30


def test_it_prints_classes_and_confusions_and_draws_the_matrix(plots: None, command: Command, trained: Path) -> None:
    printed = command("eval", f"checkpoint={trained}").out
    assert "Accuracy per class" in printed
    assert "pattern 0" in printed
    assert "30 of 30" in printed
    (image,) = trained.glob("eval_*/confusion.png")
    with Image.open(image) as image:
        assert image.width > 300
    assert len(results_of(trained)[0]["per_class.accuracy"]) == 6


def test_it_prints_the_ten_worst_of_more_classes_and_records_all(command: Command, tmp_path: Path) -> None:
    run = ["data.num_classes=12", "data.val_images=60", "trainer.max_epochs=1"]
    assert command("train", *TINY, *run).code == 0
    printed = command("eval", f"checkpoint={only_run(tmp_path)}").out
    table = printed.partition("Accuracy per class, worst first: 10 of 12")[2].partition("Most frequent")[0]
    assert table.count("pattern ") == 10
    assert len(results_of(only_run(tmp_path))[0]["per_class.accuracy"]) == 12


def test_it_tells_the_calibration_of_the_predictions_that_it_writes(plots: None, command: Command, trained: Path) -> None:
    """The expected calibration error is that of torchmetrics on the written predictions, within 1e-6."""
    printed = command("eval", f"checkpoint={trained}").out
    (folder,) = trained.glob("eval_*")
    rows = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    right = [classes[0] == label for classes, label in zip(rows["classes"], rows["label"], strict=True)]
    confidence = torch.tensor([values[0] for values in rows["probabilities"]])
    expected = float(binary_calibration_error(confidence, torch.tensor(right).int(), n_bins=15, norm="l1"))
    assert results_of(trained)[0]["calibration.ece"] == pytest.approx(expected, abs=1e-6)
    assert f"expected error {expected:.2%}" in printed
    for name in ("reliability.png", "mistakes.png"):
        with Image.open(folder / name) as image:
            assert image.width > 300


def test_a_second_evaluation_overwrites_nothing(command: Command, trained: Path) -> None:
    before = (trained / "results.json").read_bytes()
    for _ in range(2):
        command("eval", f"checkpoint={trained}")
    assert len(results_of(trained)) == 2
    assert (trained / "results.json").read_bytes() == before


def test_other_data_of_the_same_classes_can_be_given(command: Command, trained: Path) -> None:
    outcome = command("eval", f"checkpoint={trained}", "data=synthetic", "data.num_classes=6", "data.val_images=12")
    assert outcome.code == 0
    assert "12 of 12" in outcome.out


def test_data_of_other_classes_is_refused(command: Command, trained: Path) -> None:
    outcome = command("eval", f"checkpoint={trained}", "data=digits")
    assert outcome.code == 2
    assert "10 classes" in outcome.err
    assert not results_of(trained)


def test_a_custom_model_trains_and_is_evaluated_if_trusted(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = "_target_: timm.create_model\nmodel_name: test_vit\nimg_size: 32\nnum_classes: null\n"
    (tmp_path / "mine" / "model" / "vit.yaml").write_text(text)
    overrides = [entry for entry in TINY if not entry.startswith("model")]
    outcome = command("train", "--config-dir", str(tmp_path / "mine"), *overrides, "model=vit")
    assert outcome.code == 0, outcome.err
    assert "trust=true" in command("eval", f"checkpoint={only_run(tmp_path)}").err
    assert command("eval", f"checkpoint={only_run(tmp_path)}", "trust=true").code == 0


def test_a_checkpoint_that_names_a_foreign_class_is_refused_unless_trusted(command: Command, trained: Path) -> None:
    import torch

    file = trained / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    content["swin_lab"]["model"]["_target_"] = "subprocess.check_output"
    torch.save(content, file)
    outcome = command("eval", f"checkpoint={trained}")
    assert outcome.code == 2
    assert "subprocess.check_output" in outcome.err
    assert "trust=true" in outcome.err


def test_an_evaluation_in_which_no_image_can_be_read_is_an_error(command: Command, tmp_path: Path) -> None:
    assert command("train", *TINY, "data.num_classes=2", "trainer.max_epochs=1").code == 0
    for name in ("pattern 0", "pattern 1"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.png").write_text("not an image")
    skipping = ["data=folder", "data.root=images", "data.val_only=true", "data.on_error=skip"]
    outcome = command("eval", f"checkpoint={only_run(tmp_path)}", *skipping)
    assert outcome.code == 2
    assert "no image was evaluated" in outcome.err
    assert "nan" not in outcome.out
    assert len(outcome.err.strip().splitlines()) <= 3
