"""`swin-lab lr` and `swin-lab recipe diff`: output and refused input."""

import re
from pathlib import Path

import pytest
from PIL import Image

from swin_lab.commands.app import main
from swin_lab.record import flat
from swin_lab.run.compose import composed
from swin_lab.run.official import read_official
from swin_lab.run.recipe import build_recipe, derived_values

LARGE = """
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
"""
"""The published files, key by key (github.com/microsoft/Swin-Transformer at f82860b); none of them tells a batch size."""

V2_384 = """
DATA:
  IMG_SIZE: 384
MODEL:
  TYPE: swinv2
  NAME: swinv2_base_patch4_window12to24_192to384_22kto1k_ft
  DROP_PATH_RATE: 0.2
  SWINV2:
    EMBED_DIM: 128
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 4, 8, 16, 32 ]
    WINDOW_SIZE: 24
    PRETRAINED_WINDOW_SIZES: [ 12, 12, 12, 6 ]
TRAIN:
  EPOCHS: 30
  WARMUP_EPOCHS: 5
  WEIGHT_DECAY: 1e-8
  BASE_LR: 2e-05
  WARMUP_LR: 2e-08
  MIN_LR: 2e-07
TEST:
  CROP: False
"""

PRETRAINING = """
DATA:
  DATASET: imagenet22K
MODEL:
  TYPE: swin
  NAME: swin_base_patch4_window7_224_22k
  DROP_PATH_RATE: 0.2
  SWIN:
    EMBED_DIM: 128
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 4, 8, 16, 32 ]
    WINDOW_SIZE: 7
TRAIN:
  EPOCHS: 90
  WARMUP_EPOCHS: 5
  WEIGHT_DECAY: 0.05
  BASE_LR: 1.25e-4 # 4096 batch-size
  WARMUP_LR: 1.25e-7
  MIN_LR: 1.25e-6
"""

V2_PRETRAINING = """
DATA:
  DATASET: imagenet22K
  IMG_SIZE: 192
MODEL:
  TYPE: swinv2
  NAME: swinv2_large_patch4_window12_192_22k
  DROP_PATH_RATE: 0.2
  SWINV2:
    EMBED_DIM: 192
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 6, 12, 24, 48 ]
    WINDOW_SIZE: 12
TRAIN:
  EPOCHS: 90
  WARMUP_EPOCHS: 5
  WEIGHT_DECAY: 0.1
  BASE_LR: 1.25e-4 # 4096 batch-size
  WARMUP_LR: 1.25e-7
  MIN_LR: 1.25e-6
"""

FROM_SCRATCH = """
MODEL:
  TYPE: swin
  NAME: swin_base_patch4_window7_224
  DROP_PATH_RATE: 0.5
  SWIN:
    EMBED_DIM: 128
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 4, 8, 16, 32 ]
    WINDOW_SIZE: 7
"""

SIMMIM = """
MODEL:
  TYPE: swinv2
  NAME: simmim_pretrain
  DROP_PATH_RATE: 0.1
  SIMMIM:
    NORM_TARGET:
      ENABLE: True
      PATCH_SIZE: 47
  SWINV2:
    EMBED_DIM: 128
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 4, 8, 16, 32 ]
    WINDOW_SIZE: 12
DATA:
  IMG_SIZE: 192
  MASK_PATCH_SIZE: 32
  MASK_RATIO: 0.6
TRAIN:
  EPOCHS: 800
  WARMUP_EPOCHS: 10
  BASE_LR: 1e-4
  WARMUP_LR: 5e-7
  WEIGHT_DECAY: 0.05
  LR_SCHEDULER:
    NAME: 'multistep'
    GAMMA: 0.1
    MULTISTEPS: [700,]
"""

SIMMIM_V1 = """
MODEL:
  TYPE: swin
  NAME: simmim_pretrain
  DROP_PATH_RATE: 0.0
  SWIN:
    EMBED_DIM: 128
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 4, 8, 16, 32 ]
    WINDOW_SIZE: 6
DATA:
  IMG_SIZE: 192
  MASK_PATCH_SIZE: 32
  MASK_RATIO: 0.6
TRAIN:
  EPOCHS: 800
  WARMUP_EPOCHS: 10
  BASE_LR: 1e-4
  WARMUP_LR: 5e-7
  WEIGHT_DECAY: 0.05
  LR_SCHEDULER:
    NAME: 'multistep'
    GAMMA: 0.1
    MULTISTEPS: [700,]
"""

SIMMIM_FINE_TUNING = """
MODEL:
  TYPE: swinv2
  NAME: simmim_finetune
  DROP_PATH_RATE: 0.1
  SWINV2:
    EMBED_DIM: 128
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 4, 8, 16, 32 ]
    WINDOW_SIZE: 14
    PRETRAINED_WINDOW_SIZES: [ 12, 12, 12, 6 ]
DATA:
  IMG_SIZE: 224
TRAIN:
  EPOCHS: 100
  WARMUP_EPOCHS: 20
  BASE_LR: 1.25e-3
  WARMUP_LR: 2.5e-7
  MIN_LR: 2.5e-7
  WEIGHT_DECAY: 0.05
  LAYER_DECAY: 0.75
"""

SIMMIM_FINE_TUNING_V1 = """
MODEL:
  TYPE: swin
  NAME: simmim_finetune
  DROP_PATH_RATE: 0.1
  SWIN:
    EMBED_DIM: 128
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 4, 8, 16, 32 ]
    WINDOW_SIZE: 7
DATA:
  IMG_SIZE: 224
TRAIN:
  EPOCHS: 100
  WARMUP_EPOCHS: 20
  BASE_LR: 1.25e-3
  WARMUP_LR: 2.5e-7
  MIN_LR: 2.5e-7
  WEIGHT_DECAY: 0.05
  LAYER_DECAY: 0.8
"""

SWIN_MLP = """
DATA:
  IMG_SIZE: 256
MODEL:
  TYPE: swin_mlp
  NAME: swin_mlp_tiny_c6_patch4_window8_256
  DROP_PATH_RATE: 0.2
  SWIN_MLP:
    EMBED_DIM: 96
    DEPTHS: [ 2, 2, 6, 2 ]
    NUM_HEADS: [ 16, 32, 64, 128 ]
    WINDOW_SIZE: 8
"""

PAIRS = {
    "swin_mlp_tiny_c6_patch4_window8_256": SWIN_MLP,
    "swin_large_patch4_window7_224_22kto1k": LARGE,
    "swinv2_base_patch4_window12to24_192to384_22kto1k_ft": V2_384,
    "swin_base_patch4_window7_224_22k": PRETRAINING,
    "swinv2_large_patch4_window12_192_22k": V2_PRETRAINING,
    "swin_base_patch4_window7_224": FROM_SCRATCH,
    "swin_base_patch4_window6_192_simmim": SIMMIM_V1,
    "swinv2_base_patch4_window12_192_simmim": SIMMIM,
    "swin_base_patch4_window7_224_simmim_ft": SIMMIM_FINE_TUNING_V1,
    "swinv2_base_patch4_window12to14_192to224_simmim_ft": SIMMIM_FINE_TUNING,
}


def official(folder: Path, text: str) -> Path:
    file = folder / "official.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("experiment", PAIRS)
def test_an_official_file_as_published_equals_the_experiment_of_its_name(
    experiment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = official(tmp_path, PAIRS[experiment])
    assert main(["recipe", "diff", "--official", str(file), f"experiment={experiment}", "--exit-code"]) == 0
    printed = capsys.readouterr().out
    assert f"every value, given or derived, equals that of {file}" in printed
    batch = 4096 if experiment.endswith("_22k") else 2048 if "_simmim" in experiment else 1024
    name = re.search(r"NAME: (\w+)", PAIRS[experiment])
    assert name is not None
    assert f"the file does not tell the number of GPUs; {name[1]}" in printed
    assert f"was trained with {batch} images per update" in printed


@pytest.mark.parametrize(
    ("name", "options", "batch", "note"),
    [
        ("swin_base_patch4_window7_224_22k", [], 4096, "was trained with 4096 images per update"),
        ("swin_base_patch4_window7_224_22k", ["--gpus", "32"], 4096, None),
        ("swin_base_patch4_window7_224_22k", ["--gpus", "8"], 1024, None),
        ("mine", [], 1024, "with 8, an update has 1024 images; set it with --gpus"),
        ("mine", ["--gpus", "3"], 384, None),
    ],
    ids=str,
)
def test_the_number_of_gpus_is_given_or_that_of_the_published_training_or_8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, options: list[str], batch: int, note: str | None
) -> None:
    file = official(tmp_path, PRETRAINING.replace("swin_base_patch4_window7_224_22k", name))
    assert main(["recipe", "diff", "--official", str(file), *options]) == 0
    printed = capsys.readouterr().out
    assert f"global_batch={batch} " in printed
    assert ("the file does not tell the number of GPUs" in printed) == (note is not None)
    assert (note or "") in printed


def test_an_official_file_becomes_overrides_that_compose(tmp_path: Path) -> None:
    """YAML 1.1 reads 2e-05 as a string; the official code converts it to a number, and so does the reader."""
    found = read_official(official(tmp_path, LARGE))
    config = flat(composed(found.overrides))
    assert found.name == "swin_large_patch4_window7_224_22kto1k_finetune"
    assert (config["optimizer.lr"], config["optimizer.weight_decay"], config["global_batch"]) == (2e-5, 1e-8, 1024)
    assert "model=swin_large_patch4_window7_224" in found.overrides
    assert not [note for note in found.notes if "no counterpart" in note]


def test_a_network_that_is_not_a_variant_becomes_its_hyper_parameters(tmp_path: Path) -> None:
    text = LARGE.replace("EMBED_DIM: 192", "EMBED_DIM: 48").replace("[ 6, 12, 24, 48 ]", "[3, 6, 12, 24]")
    config = composed(read_official(official(tmp_path, text)).overrides)["model"]
    assert (config["embed_dim"], config["depths"], config["num_heads"]) == (48, [2, 2, 18, 2], [3, 6, 12, 24])


def test_a_swin_mlp_that_is_not_a_variant_becomes_its_hyper_parameters(tmp_path: Path) -> None:
    """QKV_BIAS is no key of MODEL.SWIN_MLP in the official config.py."""
    text = SWIN_MLP.replace("EMBED_DIM: 96", "EMBED_DIM: 48\n    QKV_BIAS: False")
    found = read_official(official(tmp_path, text))
    config = composed(found.overrides)["model"]
    assert (config["embed_dim"], config["token_mixer"], config["window_size"]) == (48, "mlp", 8)
    assert "MODEL.SWIN_MLP.QKV_BIAS has no counterpart and is left out" in found.notes


@pytest.mark.parametrize(
    ("changed", "key", "value"),
    [
        ("TRAIN: {LR_SCHEDULER: {WARMUP_PREFIX: False}}", "schedule.cosine_after_warmup", False),
        ("TRAIN: {LR_SCHEDULER: {NAME: multistep, MULTISTEPS: [700], GAMMA: 0.1}}", "schedule.epochs", [700]),
        ("TRAIN: {LR_SCHEDULER: {NAME: step, DECAY_EPOCHS: 7}}", "schedule.every_epochs", 7),
        ("TRAIN: {LR_SCHEDULER: {NAME: linear}}", "schedule._target_", "swin_lab.training.Linear"),
        ("TRAIN: {LAYER_DECAY: 0.8}", "optimizer.layer_decay", 0.8),
        ("TRAIN: {CLIP_GRAD: 3.0}", "trainer.gradient_clip_val", 3.0),
        ("AUG: {MIXUP: 0, CUTMIX: 0}\nTRAIN: {}", "mixing", None),
        ("AUG: {AUTO_AUGMENT: none}\nTRAIN: {}", "augment.auto_augment", None),
        ("AUG: {MIXUP_MODE: elem}\nTRAIN: {}", "mixing.mode", "elem"),
        ("TEST: {CROP: False}\nTRAIN: {}", "data.resize_mode", "stretch"),
        ("DATA: {INTERPOLATION: bilinear}\nTRAIN: {}", "data.interpolation", "bilinear"),
        ("DATA: {INTERPOLATION: bilinear}\nTRAIN: {}", "preset", None),
        ("MODEL: {LABEL_SMOOTHING: 0.2}\nTRAIN: {}", "task.label_smoothing", 0.2),
    ],
)
def test_each_official_key_becomes_its_counterpart(tmp_path: Path, changed: str, key: str, value: object) -> None:
    assert flat(composed(read_official(official(tmp_path, changed)).overrides))[key] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {TYPE: swin_moe}", "MODEL.TYPE=swin_moe is not supported; did you mean swin_mlp?"),
        ("TRAIN: {OPTIMIZER: {NAME: sgd}}", "TRAIN.OPTIMIZER.NAME=sgd is not supported"),
        ("TRAIN: {LR_SCHEDULER: {NAME: plateau}}", "TRAIN.LR_SCHEDULER.NAME=plateau is unknown; choose one of"),
        ("TRAIN: {}\nDATA: {DATASET: coco}", "DATA.DATASET=coco is unknown; choose one of"),
        ("TRAIN: {BASE_LR: abc}", "TRAIN.BASE_LR=abc must be a finite number"),
        ("TRAIN: {BASE_LR: 0}", "TRAIN.BASE_LR=0.0 must be a positive number"),
        ("TRAIN: {EPOCHS: -5}", "trainer.max_epochs=-5"),
        ("TRAIN: {EPOCHS: ten}", "TRAIN.EPOCHS=ten must be an integer"),
        ("TRAIN: {OPTIMIZER: {BETAS: 3}}", "TRAIN.OPTIMIZER.BETAS=3 must be a list of 2 values"),
        ("TRAIN: {OPTIMIZER: {NAME: 3}}", "TRAIN.OPTIMIZER.NAME=3 must be a string"),
        ("TRAIN: {LR_SCHEDULER: {NAME: multistep, MULTISTEPS: [a]}}", "TRAIN.LR_SCHEDULER.MULTISTEPS=[a] must be a list"),
        ("TRAIN: {LR_SCHEDULER: cosine}", "TRAIN.LR_SCHEDULER=cosine must be a section of keys"),
        ("MODEL: 5", "MODEL=5 must be a section of keys"),
        ("MODEL: [1]", "MODEL=[1] must be a section of keys"),
        ("MODEL:", "MODEL=None must be a section of keys"),
        ("MODEL: {NAME: {a: 1}}", "must be a value, not a section"),
        ("MODEL: {SWIN: {DEPTHS: deep}}", "MODEL.SWIN.DEPTHS=deep must be a list, each entry a positive integer"),
        ("MODEL: {SWIN: {DEPTHS: [2, 2]}}", "depths=[2, 2]"),
        ("MODEL: {SWIN: {WINDOW_SIZE: 0}}", "window_size=0"),
        ("MODEL: {}", "none of its keys is known"),
        ("DATA: {5: 3}", "none of its keys is known"),
        ("DATA: {IMG_SIZE: -1}", "img_size=-1"),
        ("DATA: {BATCH_SIZE: 0}", "global_batch=0"),
        ("AUG: {REPROB: 7}\nTRAIN: {}", "augment.erase=7"),
        ("BASE: [other.yaml]\nTRAIN: {EPOCHS: 3}", "BASE=['other.yaml'] is not supported"),
        ("", "none of MODEL, DATA and TRAIN"),
        ("only words", "none of MODEL, DATA and TRAIN"),
        ("a: 1", "none of MODEL, DATA and TRAIN"),
        ("- 1", "none of MODEL, DATA and TRAIN"),
        ("{", "is not a YAML file"),
    ],
)
def test_files_of_other_kinds_and_unsupported_values_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert main(["recipe", "diff", "--official", str(official(tmp_path, text))]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_key_without_a_counterpart_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "diff", "--official", str(official(tmp_path, LARGE + "  MOE:\n    SAVE_MASTER: True\n"))])
    assert "TRAIN.MOE.SAVE_MASTER has no counterpart" in capsys.readouterr().out


def test_the_published_recipe_has_no_differences_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["experiment=swin_tiny_patch4_window7_224", "data.root=/somewhere", "trainer.devices=4", "out=/elsewhere"]
    assert main(["recipe", "diff", *arguments]) == 0
    assert "every value, given or derived, equals that of experiment=swin_tiny_patch4_window7_224" in capsys.readouterr().out


def test_a_difference_is_listed_with_all_that_follows_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", "global_batch=2048", "model.drop_path_rate=0.1"])
    rows = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["global_batch"][-2:] == ["1024", "2048"]
    assert rows["learning rate"][-2:] == ["0.001", "0.002"]
    assert rows["updates"][-2:] == ["375,300", "187,500"]
    assert rows["drop path rate of the last block"][-2:] == ["0.2", "0.1"]


def test_skipped_branches_are_a_difference_and_compilation_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", "--exit-code"]
    assert main([*arguments, "compile=blocks", "compile_mode=max-autotune"]) == 0
    capsys.readouterr()
    assert main([*arguments, "model.drop_path_mode=skip"]) == 1
    rows = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["model.drop_path_mode"][-2:] == ["mask", "skip"]


def test_with_exit_code_a_difference_gives_1_as_git_diff_does(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", "seed=1"]
    assert (main(arguments), main([*arguments, "--exit-code"])) == (0, 1)
    assert "seed" in capsys.readouterr().out


def test_fewer_images_than_one_batch_are_remarked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", "--images", "500"]) == 0
    assert "note       500 images are less than one batch of 1024: no update" in capsys.readouterr().out


def test_without_a_recipe_the_message_asks_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "diff", "optimizer.lr=1"]) == 2
    assert "experiment=NAME, or --official FILE.yaml" in capsys.readouterr().err


def test_a_misspelt_key_gives_the_message_of_train_py(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", "optimizer.lrr=1"]) == 2
    assert "unknown key optimizer.lrr; did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        *("trainer.max_epochs=2.5", "trainer.limit_val_batches=abc", "seed=-1", "transfer.head=all", "+logger.csv=3"),
        *("name=a/b/c", "trainer.accelerator=foo", "trainer.strategy=foo", "precision=foo", "data.num_workers=9999"),
        "transfer.head=keep",
    ],
)
def test_values_are_checked_as_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    assert main(["lr", str(tmp_path / "rates.png"), "data=synthetic", wrong]) == 2
    assert wrong.lstrip("+") in capsys.readouterr().err


@pytest.mark.parametrize("elsewhere", ["weights=nowhere.pth", "precision=16-mixed", "trainer.accelerator=gpu", "name=2026"])
def test_weights_and_devices_of_another_machine_are_not_needed(tmp_path: Path, elsewhere: str) -> None:
    assert main(["lr", str(tmp_path / "rates.png"), "data=synthetic", elsewhere]) == 0


@pytest.mark.parametrize("removed", ["~trainer.max_epochs", "~name", "~trainer", "~data"])
def test_a_removed_key_that_training_needs_is_named(capsys: pytest.CaptureFixture[str], removed: str) -> None:
    assert main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", removed]) == 2
    assert removed.lstrip("~") in capsys.readouterr().err


def test_a_removed_key_has_the_default_of_lightning(tmp_path: Path) -> None:
    removed = ["~trainer.limit_train_batches", "~trainer.max_steps"]
    assert main(["lr", str(tmp_path / "rates.png"), "data=synthetic", *removed]) == 0


def test_cifar_is_not_downloaded_for_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    both = ["experiment=swin_tiny_patch4_window7_224", "experiment=cifar10"]
    assert main(["recipe", "diff", *both]) == 0
    assert "equals that of experiment=cifar10" in capsys.readouterr().out  # The last one counts, as in train.py.
    assert not list(tmp_path.iterdir())


def test_an_image_in_a_folder_that_cannot_be_written_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lr", "/proc/rates.png", "data=synthetic"]) == 2
    assert capsys.readouterr().err == "error: cannot write /proc/rates.png: no such file or directory\n"


@pytest.mark.parametrize(("batch", "expected"), [(128, 1024), (256, 1024), (100, 800)])
def test_the_published_batch_is_used_if_that_of_the_file_divides_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: int, expected: int
) -> None:
    file = official(tmp_path, FROM_SCRATCH + f"DATA:\n  BATCH_SIZE: {batch}\n")
    assert main(["recipe", "diff", "--official", str(file)]) == 0
    printed = capsys.readouterr().out
    assert f"global_batch={expected} " in printed
    assert ("set it with --gpus" in printed) == (batch == 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "--images=0 must be an integer of at least 1"),
        (["--images", "1" + "0" * 30], "0 must be an integer of at most 1000000000000"),
        (["--images", "many"], "--images=many must be an integer"),
        (["--devices", "0"], "--devices=0 must be an integer of at least 1"),
        (["--devices", "-3"], "--devices=-3 must be an integer of at least 1"),
        (["--devices", "3"], "global_batch=32 is not divisible by 3 devices"),
        (["--config-dir", "nowhere"], "nowhere"),
        (["--config-dir", __file__], "test_recipe.py"),
        (["--gpus", "3"], "no such option: --gpus"),
        (["+trainer.accumulate_grad_batches=4"], "trainer.accumulate_grad_batches is set by the run"),
        (["trainer.max_epochs=-1"], "the run has no end; give trainer.max_epochs=N"),
        (["data.train_images=5"], "5 images are less than one batch of 32"),
        (["trainer.limit_train_batches=1e-9"], "trainer.limit_train_batches=1e-09"),
        (["optimizer.lr=1e300", "global_batch=3200"], "optimizer.lr=1e+300"),
        (["experiment=mine"], "experiment=mine is unknown"),
        (["experiment=mine"], "--config-dir DIR"),
        (["global_batch=1", "mixing=imagenet"], "mixing needs two images at once"),
        (["augment=imagenet", "augment.erase=7"], "augment.erase=7"),
    ],
    ids=str,
)
def test_meaningless_options_and_values_of_lr_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["lr", str(tmp_path / "rates.png"), "data=synthetic", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) <= 3
    assert not (tmp_path / "rates.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--gpus", "0"], ["--gpus", "x"], ["--official", "nowhere.yaml"], ["--official", "."], ["experiment=none"], []],
    ids=str,
)
def test_meaningless_options_of_recipe_diff_are_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["recipe", "diff", *arguments]) == 2
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 3


def test_the_learning_rate_is_plotted_and_the_groups_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "rates.png"
    assert main(["lr", str(image), "experiment=swin_large_patch4_window7_224_22kto1k", "--devices", "8"]) == 0
    printed = capsys.readouterr().out
    with Image.open(image) as image:
        assert image.width > 600
    assert "1024 = 8 devices x 64 images x 2 accumulated, 1,281,167 images per epoch" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["6,255", "5.00", "4e-05"] in lines
    assert ["18,765", "15.00", "2.6318536e-05"] in lines
    assert any(line[:5] == ["0", "101", "196,187,136", "1e-08", "4e-05"] for line in lines)


def test_the_groups_of_layer_decay_have_their_own_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["experiment=swin_tiny_patch4_window7_224", "optimizer.layer_decay=0.9"]
    main(["lr", str(tmp_path / "rates.png"), *arguments])
    layers = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()[:1].isdigit()][-28:]
    assert [int(layer[0]) for layer in layers] == [i // 2 for i in range(28)]
    assert float(layers[0][4]) == pytest.approx(1e-3 * 0.254187, rel=1e-5)
    assert float(layers[-1][4]) == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("name", ["rates.jpg", "nowhere/rates.png"])
def test_an_image_file_that_cannot_be_written_is_refused_before_plotting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["lr", str(tmp_path / name), "experiment=swin_tiny_patch4_window7_224"]) == 2
    assert "give a new .png file in a folder that exists" in capsys.readouterr().err


def test_an_existing_image_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "rates.png").write_text("mine")
    assert main(["lr", str(tmp_path / "rates.png"), "data=synthetic"]) == 2
    assert (tmp_path / "rates.png").read_text() == "mine"


def test_available_data_needs_no_number_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lr", str(tmp_path / "rates.png"), "data=synthetic", "data.train_images=320"]) == 0
    assert "320 images per epoch" in capsys.readouterr().out


def test_an_unknown_number_of_images_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["experiment=swin_tiny_patch4_window7_224_22k"]
    assert main(["lr", str(tmp_path / "a.png"), *arguments]) == 2
    assert "give --images N" in capsys.readouterr().err
    assert main(["lr", str(tmp_path / "a.png"), *arguments, "--images", "14197122"]) == 0


def test_callbacks_and_skipped_images_are_differences(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224", "callbacks=head_only", "data.on_error=skip"])
    printed = capsys.readouterr().out
    assert "callbacks.freezing" in printed
    assert "data.on_error" in printed


def test_recipes_of_small_data_are_compared_without_the_published_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("train/ant", "train/bee", "val/ant", "val/bee"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (20, 30)).save(tmp_path / place / f"{i}.png")
    arguments = ["recipe", "diff", "experiment=finetune_small", f"data.root={tmp_path}", "global_batch=4"]
    assert main([*arguments, "optimizer.lr=1e-3"]) == 0
    assert "optimizer.lr" in capsys.readouterr().out
    assert main(["recipe", "diff", "experiment=cifar10", "data=synthetic", "global_batch=4"]) == 0
    assert main(["recipe", "diff", "experiment=finetune_small"]) == 2


def test_a_given_number_of_images_is_not_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe", "diff", "experiment=swin_tiny_patch4_window7_224_22k", "--images", "14197122"])
    assert "every value, given or derived, equals that of" in capsys.readouterr().out


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
def test_a_run_has_as_many_updates_as_lightning_performs(limits: list[str], updates: int) -> None:
    config = composed(["data=synthetic", "data.train_images=320", "global_batch=16", *limits])
    length = build_recipe(config).length
    assert length is not None
    assert length.total_steps == updates


@pytest.mark.parametrize(
    ("values", "epochs", "end"),
    [
        (["schedule=constant"], 100, 1.0),
        (["schedule=cosine"], 100, 0.01),
        (["schedule=cosine", "schedule.cosine_after_warmup=false"], 100, 0.01),
        (["schedule=cosine", "schedule.min_lr_ratio=0"], 100, 0.0),
        (["schedule=linear"], 100, 0.01),
        (["schedule=step"], 59, 0.1),
        (["schedule=step"], 60, 0.1),  # The second decrease would follow the last update.
        (["schedule=multistep"], 90, 0.1),
        (["schedule=multistep"], 91, 0.01),
        (["schedule=multistep", "schedule.interval=epoch"], 90, 0.1),
        (["schedule=constant", "schedule.warmup_epochs=4", "schedule.warmup_lr_ratio=0"], 2, 0.5),
    ],
    ids=str,
)
def test_the_final_learning_rate_is_that_at_the_end_of_the_schedule(values: list[str], epochs: int, end: float) -> None:
    for images in (320, 3):  # With fewer images than a batch, the number of updates is 0.
        length = [f"data.train_images={images}", f"trainer.max_epochs={epochs}"]
        recipe = build_recipe(composed(["data=synthetic", *length, *values]))
        assert derived_values(recipe)["final learning rate"] == pytest.approx(recipe.peak_lr * end, rel=1e-9)
