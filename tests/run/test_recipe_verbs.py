"""`swin-lab lr`, `recipe diff` and `data`: what they print, draw and refuse."""

from pathlib import Path

import pytest
from PIL import Image

from swin_lab.cli import main
from swin_lab.run.compose import composed
from swin_lab.run.loggers import flat
from swin_lab.run.official import read_official
from swin_lab.run.recipe import Recipe

LARGE = """
DATA:
  IMG_SIZE: 224
  BATCH_SIZE: 64
MODEL:
  TYPE: swin
  NAME: swin_large_patch4_window7_224_22kto1k_finetune
  DROP_PATH_RATE: 0.2
  SWIN:
    EMBED_DIM: 192
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 6, 12, 24, 48 ]
    WINDOW_SIZE: 7
TRAIN:
  EPOCHS: 30
  WARMUP_EPOCHS: 5
  WEIGHT_DECAY: 1e-8
  BASE_LR: 2e-05
  WARMUP_LR: 2e-08
  MIN_LR: 2e-07
  ACCUMULATION_STEPS: 2
"""
"""What the published fine-tuning changes, in the official code's words."""

V2_384 = """
DATA: {IMG_SIZE: 384}
MODEL:
  TYPE: swinv2
  NAME: swinv2_base_patch4_window12to24_192to384_22kto1k_ft
  DROP_PATH_RATE: 0.2
  SWINV2:
    EMBED_DIM: 128
    DEPTHS: [2, 2, 18, 2]
    NUM_HEADS: [4, 8, 16, 32]
    WINDOW_SIZE: 24
    PRETRAINED_WINDOW_SIZES: [12, 12, 12, 6]
TRAIN: {EPOCHS: 30, WARMUP_EPOCHS: 5, WEIGHT_DECAY: 1e-8, BASE_LR: 2e-05, WARMUP_LR: 2e-08, MIN_LR: 2e-07}
TEST: {CROP: False}
"""

PRETRAINING = """
DATA: {DATASET: imagenet22K, BATCH_SIZE: 512}
MODEL:
  TYPE: swin
  NAME: swin_base_patch4_window7_224_22k
  DROP_PATH_RATE: 0.2
  SWIN: {EMBED_DIM: 128, DEPTHS: [2, 2, 18, 2], NUM_HEADS: [4, 8, 16, 32], WINDOW_SIZE: 7}
TRAIN: {EPOCHS: 90, WARMUP_EPOCHS: 5, WEIGHT_DECAY: 0.05, BASE_LR: 1.25e-4, WARMUP_LR: 1.25e-7, MIN_LR: 1.25e-6}
"""

PAIRS = {
    "swin_large_patch4_window7_224_22kto1k": LARGE,
    "swinv2_base_patch4_window12to24_192to384_22kto1k_ft": V2_384,
    "swin_base_patch4_window7_224_22k": PRETRAINING,
}


def official(folder: Path, text: str) -> Path:
    file = folder / "official.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("experiment", PAIRS)
def test_an_official_file_amounts_to_our_experiment(
    experiment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = official(tmp_path, PAIRS[experiment])
    assert main(["recipe", "diff", "--official", str(file), f"experiment={experiment}"]) == 0
    assert f"every value, given or derived, is that of {file}" in capsys.readouterr().out


def test_an_official_file_becomes_overrides_that_compose(tmp_path: Path) -> None:
    """YAML 1.1 reads 2e-05 as text; the official code rescues it, and so do we."""
    found = read_official(official(tmp_path, LARGE))
    config = flat(composed(found.overrides))
    assert found.name == "swin_large_patch4_window7_224_22kto1k_finetune"
    assert (config["optimizer.lr"], config["optimizer.weight_decay"], config["global_batch"]) == (2e-5, 1e-8, 1024)
    assert "model=swin_large_patch4_window7_224" in found.overrides
    assert found.unknown == []


def test_a_network_without_a_name_becomes_its_numbers(tmp_path: Path) -> None:
    text = LARGE.replace("EMBED_DIM: 192", "EMBED_DIM: 48").replace("[ 6, 12, 24, 48 ]", "[3, 6, 12, 24]")
    config = composed(read_official(official(tmp_path, text)).overrides)["model"]
    assert (config["embed_dim"], config["depths"], config["num_heads"]) == (48, [2, 2, 18, 2], [3, 6, 12, 24])


@pytest.mark.parametrize(
    ("changed", "key", "value"),
    [
        ("TRAIN: {LR_SCHEDULER: {WARMUP_PREFIX: False}}", "schedule.warmup_prefix", "as_published"),
        ("TRAIN: {LR_SCHEDULER: {NAME: multistep, MULTISTEPS: [700], GAMMA: 0.1}}", "schedule.epochs", [700]),
        ("TRAIN: {LR_SCHEDULER: {NAME: step, DECAY_EPOCHS: 7}}", "schedule.every_epochs", 7),
        ("TRAIN: {LR_SCHEDULER: {NAME: linear}}", "schedule._target_", "swin_lab.training.Linear"),
        ("TRAIN: {LAYER_DECAY: 0.8}", "optimizer.layer_decay", 0.8),
        ("TRAIN: {CLIP_GRAD: 3.0}", "trainer.gradient_clip_val", 3.0),
        ("AUG: {MIXUP: 0, CUTMIX: 0}\nTRAIN: {}", "mixing", {}),
        ("AUG: {AUTO_AUGMENT: none}\nTRAIN: {}", "augment.auto_augment", None),
        ("AUG: {MIXUP_MODE: elem}\nTRAIN: {}", "mixing.mode", "elem"),
        ("TEST: {CROP: False}\nTRAIN: {}", "data.resize_mode", "stretch"),
        ("DATA: {INTERPOLATION: bilinear}\nTRAIN: {}", "data.interpolation", "bilinear"),
        ("DATA: {INTERPOLATION: bilinear}\nTRAIN: {}", "preset", None),
        ("MODEL: {LABEL_SMOOTHING: 0.2}\nTRAIN: {}", "label_smoothing", 0.2),
    ],
)
def test_each_official_key_arrives_at_its_place(tmp_path: Path, changed: str, key: str, value: object) -> None:
    assert flat(composed(read_official(official(tmp_path, changed)).overrides))[key] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {TYPE: swin_mlp}", "MODEL.TYPE=swin_mlp is no network of this project"),
        ("TRAIN: {OPTIMIZER: {NAME: sgd}}", "TRAIN.OPTIMIZER.NAME=sgd is not expressed"),
        ("TRAIN: {LR_SCHEDULER: {NAME: plateau}}", "TRAIN.LR_SCHEDULER.NAME=plateau is none of"),
        ("TRAIN: {}\nDATA: {DATASET: coco}", "DATA.DATASET=coco is none of"),
        ("TRAIN: {BASE_LR: abc}", "abc stands in the official file where a number belongs"),
        ("TRAIN: {BASE_LR: 0}", "TRAIN.BASE_LR=0.0 is no number above zero"),
        ("a: 1", "none of MODEL, DATA and TRAIN"),
        ("- 1", "none of MODEL, DATA and TRAIN"),
        ("{", "is no YAML file"),
    ],
)
def test_a_file_that_is_none_or_asks_for_what_there_is_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert main(["recipe", "diff", "--official", str(official(tmp_path, text))]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_key_without_a_place_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "diff", "--official", str(official(tmp_path, LARGE + "  MOE:\n    SAVE_MASTER: True\n"))])
    assert "TRAIN.MOE.SAVE_MASTER has no place here" in capsys.readouterr().out


def test_the_published_recipe_departs_from_itself_in_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["experiment=swin_tiny_patch4_window7_224", "data.root=/somewhere", "trainer.devices=4", "out=/elsewhere"]
    assert main(["recipe", "diff", *typed]) == 0
    assert "every value, given or derived, is that of experiment=swin_tiny_patch4_window7_224" in capsys.readouterr().out


def test_a_departure_is_told_with_all_that_follows_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", "global_batch=2048", "model.drop_path_rate=0.1"])
    rows = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["global_batch"][-2:] == ["1024", "2048"]
    assert rows["learning rate"][-2:] == ["0.001", "0.002"]
    assert rows["updates"][-2:] == ["375,300", "187,500"]
    assert rows["drop path of the last block"][-2:] == ["0.2", "0.1"]


def test_without_a_recipe_there_is_nothing_to_compare_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "diff", "optimizer.lr=1"]) == 2
    assert "experiment=NAME, or --official FILE.yaml" in capsys.readouterr().err


def test_a_misspelt_key_is_told_as_train_py_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", "optimizer.lrr=1"]) == 2
    assert "unknown key optimizer.lrr; did you mean" in capsys.readouterr().err


def test_the_rates_are_drawn_and_the_groups_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "rates.png"
    assert main(["lr", str(image), "experiment=swin_large_patch4_window7_224_22kto1k", "--devices", "8"]) == 0
    said = capsys.readouterr().out
    with Image.open(image) as image:
        assert image.width > 600
    assert "1024 = 8 devices x 64 images x 2 accumulated, 1,281,167 images an epoch" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["6,255", "5.00", "4e-05"] in lines
    assert ["18,765", "15.00", "2.6318536e-05"] in lines
    assert any(line[:5] == ["0", "101", "196,187,136", "1e-08", "4e-05"] for line in lines)


def test_the_groups_of_layer_decay_have_their_own_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["experiment=swin_tiny_patch4_window7_224", "optimizer.layer_decay=0.9"]
    main(["lr", str(tmp_path / "rates.png"), *typed])
    layers = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()[:1].isdigit()][-28:]
    assert [int(layer[0]) for layer in layers] == [i // 2 for i in range(28)]
    assert float(layers[0][4]) == pytest.approx(1e-3 * 0.254187, rel=1e-5)
    assert float(layers[-1][4]) == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("name", ["rates.jpg", "nowhere/rates.png"])
def test_a_image_that_cannot_be_written_is_told_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["lr", str(tmp_path / name), "experiment=swin_tiny_patch4_window7_224"]) == 2
    assert "give a new .png file in a folder that exists" in capsys.readouterr().err


def test_a_image_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "rates.png").write_text("mine")
    assert main(["lr", str(tmp_path / "rates.png"), "data=synthetic"]) == 2
    assert (tmp_path / "rates.png").read_text() == "mine"


def test_the_rates_of_data_at_hand_need_no_number_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lr", str(tmp_path / "rates.png"), "data=synthetic", "data.train_images=320"]) == 0
    assert "320 images an epoch" in capsys.readouterr().out


def test_an_epoch_of_unknown_length_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["experiment=swin_tiny_patch4_window7_224_22k"]
    assert main(["lr", str(tmp_path / "a.png"), *typed]) == 2
    assert "give --images N" in capsys.readouterr().err
    assert main(["lr", str(tmp_path / "a.png"), *typed, "--images", "14197122"]) == 0


def plant(root: Path, damaged: bool = False) -> Path:
    for split, count in (("train", 3), ("val", 1)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (20, 30), (i * 50, 0, 0)).save(root / split / name / f"{i}.png")
    if damaged:
        (root / "train" / "ant" / "1.png").write_bytes(b"no image")
    return root


def test_data_is_checked_as_training_would_read_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "data=folder", f"data.root={plant(tmp_path, damaged=True)}"]) == 0
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    assert ["training", "6", "2", "3", "3", "1", "of", "6", "looked", "at"] in lines
    assert f"unreadable image {tmp_path / 'train' / 'ant' / '1.png'}" in said


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["/nowhere"], "there is no folder /nowhere"),
        (["data.root=/x"], "name the data"),
        (["data=folder"], "data.root must be given"),
        (["data=foldr"], "data=foldr is unknown; did you mean folder"),
    ],
)
def test_data_that_cannot_be_read_is_told(capsys: pytest.CaptureFixture[str], typed: list[str], message: str) -> None:
    assert main(["data", "check", *typed]) == 2
    assert message in capsys.readouterr().err


def test_packed_data_says_how_it_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = plant(tmp_path / "images"), tmp_path / "packed"
    typed = ["data", "pack", "data=folder", f"data.root={root}", "--out", str(out), "--shorter-side", "10", "--workers", "1"]
    assert main(typed) == 0
    assert f"use        data=shards data.root={out}" in capsys.readouterr().out
    assert main(["data", "check", "data=shards", f"data.root={out}"]) == 0
    assert main(typed) == 2  # nothing is overwritten


def test_flat_validation_images_are_put_into_their_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in (1, 2):
        Image.new("RGB", (4, 4)).save(tmp_path / f"ILSVRC2012_val_{i:08d}.JPEG")
    labels = tmp_path / "LOC_val_solution.csv"
    rows = "ILSVRC2012_val_00000001,n01440764 1 2 3 4\nILSVRC2012_val_00000002,n15075141 1 2 3 4\n"
    labels.write_text(f"ImageId,PredictionString\n{rows}")
    assert main(["data", "prepare-val", str(tmp_path), "--labels", str(labels)]) == 0
    assert "moved      2 images" in capsys.readouterr().out
    assert (tmp_path / "n15075141" / "ILSVRC2012_val_00000002.JPEG").is_file()


def test_what_is_trained_and_what_is_left_out_are_departures(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", "callbacks=head_only", "data.on_error=skip"])
    said = capsys.readouterr().out
    assert "callbacks.freezing" in said
    assert "data.on_error" in said


def test_recipes_of_small_data_are_compared_without_the_published_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["recipe", "diff", "experiment=finetune_small", f"data.root={plant(tmp_path)}", "global_batch=4"]
    assert main([*typed, "optimizer.lr=1e-3"]) == 0
    assert "optimizer.lr" in capsys.readouterr().out
    assert main(["recipe", "diff", "experiment=cifar10", "data=synthetic", "global_batch=4"]) == 0
    assert main(["recipe", "diff", "experiment=finetune_small"]) == 2


def test_a_given_number_of_images_is_no_departure(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224_22k", "--images", "14197122"])
    assert "every value, given or derived, is that of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limits", "updates"),
    [
        (["trainer.max_epochs=2"], 40),
        (["trainer.max_epochs=2", "trainer.max_steps=7"], 7),
        (["trainer.max_epochs=-1", "trainer.max_steps=50"], 50),
        (["trainer.max_epochs=2", "trainer.limit_train_batches=0.5"], 20),
        (["trainer.max_epochs=2", "trainer.limit_train_batches=3"], 6),
        (["trainer.max_epochs=2", "trainer.limit_train_batches=3", "max_device_batch=8"], 4),
    ],
    ids=str,
)
def test_a_run_is_as_long_as_lightning_makes_it(limits: list[str], updates: int) -> None:
    config = composed(["data=synthetic", "data.train_images=320", "global_batch=16", *limits])
    span = Recipe(config).span
    assert span is not None
    assert span.total == updates


@pytest.mark.parametrize(
    ("schedule", "end"),
    [("constant", 1.0), ("cosine", 0.01), ("linear", 0.01), ("step", 0.1), ("multistep", 0.01)],
)
def test_the_rate_at_the_end_is_that_of_the_schedule(schedule: str, end: float) -> None:
    config = composed(["data=synthetic", f"schedule={schedule}", f"trainer.max_epochs={59 if schedule == 'step' else 100}"])
    recipe = Recipe(config)
    assert recipe.derived()["learning rate at end"] == pytest.approx(recipe.highest_rate * end, rel=1e-9)
