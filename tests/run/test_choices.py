"""Choices of a group, and keys that an experiment has set for another choice than the chosen one."""

from pathlib import Path

import pytest
from conftest import TINY, Command

from swin_lab.errors import UserError
from swin_lab.run.choices import choices, keys_of
from swin_lab.run.compose import composed
from swin_lab.run.recipe import build_recipe

RECIPE = "experiment=swin_tiny_patch4_window7_224"


@pytest.mark.parametrize("choice", ["constant", "linear", "multistep", "step", "cosine"])
def test_another_schedule_replaces_that_of_a_recipe(choice: str) -> None:
    config = composed([RECIPE, f"schedule={choice}"])
    assert set(config["schedule"]) == keys_of("schedule", choice)
    assert config["schedule"]["warmup_epochs"] == 20  # of the recipe
    assert build_recipe(config).learning_rate(30_000) > 0


@pytest.mark.parametrize("group", ["mixing", "ema"])
def test_a_group_of_a_recipe_can_be_switched_off(group: str) -> None:
    config = composed(["experiment=cifar10", f"{group}=none"])
    assert config[group] == {}
    assert config["task"]["mixing"] in ({}, config["mixing"])


def test_another_model_replaces_that_of_a_recipe() -> None:
    assert "drop_path_rate" not in composed([RECIPE, "model=torchvision", "model.name=resnet18"])["model"]


def test_a_run_says_which_keys_of_the_recipe_it_does_not_use(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nschedule: {min_lr_ratio: 0.1}\n")
    outcome = command("train", "--config-dir", "conf", *TINY, "experiment=mine", "schedule=constant", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines()[0] == "warning: schedule=constant does not take schedule.min_lr_ratio of the experiment"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule=step", "+schedule.min_lr_ratio=0.1"], "unknown key schedule.min_lr_ratio"),
        (["mixing=none", "+mixing.prob=0.5"], "mixing.prob=0.5: no mixing is chosen"),
        (["ema=none", "+ema.dekay=0.5"], "ema.dekay=0.5: no ema is chosen"),
        (["~mixing._target_"], "no mixing is chosen"),
    ],
)
def test_a_typed_key_that_the_choice_does_not_take_is_refused(command: Command, overrides: list[str], message: str) -> None:
    outcome = command("train", *TINY, "mixing=imagenet", *overrides)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err


def test_a_misspelt_key_of_a_file_is_no_leftover(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nschedule: {min_lr_ration: 0.1}\n")
    outcome = command("train", "--config-dir", "conf", *TINY, "experiment=mine", "schedule=step")
    assert (outcome.code, "unknown key schedule.min_lr_ration" in outcome.err) == (2, True), outcome.err


def test_choices_of_a_configuration_directory_are_listed_and_suggested(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "my_network.yaml").write_text("_target_: torch.nn.Identity\n")
    (tmp_path / "conf" / "model" / "_base.yaml").write_text("_target_: torch.nn.Identity\n")
    assert "my_network" in choices("model", [tmp_path / "conf"])
    assert "_base" not in choices("model", [tmp_path / "conf"])
    outcome = command("train", "--config-dir", "conf", "model=my_netwrok")
    assert outcome.err == "error: model=my_netwrok is unknown; did you mean my_network?\n"


def test_a_base_of_other_choices_cannot_be_chosen() -> None:
    with pytest.raises(UserError, match=r"^model=_swin is only a base of other choices"):
        composed(["model=_swin"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+callbacks.early_stopping.monitor=val/foo"], "callbacks.early_stopping"),
        (["+callbacks.early_stopping.patience=-1"], "callbacks.early_stopping"),
        (["+logger.wandb.projct=x"], "logger.wandb"),
        (["++ema={decay:0.5}"], "ema.decay=0.5: no ema is chosen"),
        (["schedule=step", "++schedule={min_lr_ratio:0.5}"], "unknown key schedule.min_lr_ratio"),
        (["+experiment.optimizer.lr=5"], "@package _global_"),
        (["+debug.foo=1"], "@package _global_"),
    ],
)
def test_nothing_that_is_typed_is_dropped(command: Command, overrides: list[str], message: str) -> None:
    outcome = command("train", *TINY, *overrides)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"optimizer: {lr: 0.1}\n", "experiment.optimizer is not a key"),
        (b"\xef\xbb\xbf# @package _global_\nname: abc\n", "experiment.name is not a key"),
        (b"# @package _global_\nmixing: {mixup: 0.8}\n", "mixing.mixup=0.8: no mixing is chosen"),
        (b"# @package _global_\ndefaults: [mine]\n", "includes itself"),
    ],
    ids=["no package", "byte-order mark", "no choice", "itself"],
)
def test_an_experiment_file_without_effect_is_refused(command: Command, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_bytes(content)
    outcome = command("train", "--config-dir", "conf", *TINY, "experiment=mine")
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert len(outcome.err.splitlines()) <= 3


def test_callbacks_of_an_experiment_file_are_kept(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    node = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\ncallbacks: {{early_stopping: {node}}}\nlogger: {{wandb: {{_target_: nowhere.Logger}}}}\n"
    )
    config = composed(["experiment=mine"], config_dir=tmp_path / "conf")
    assert set(config["callbacks"]) == {"early_stopping"}
    assert set(config["logger"]) == {"wandb"}
