"""Every configuration file composes, and everything in it can be built."""

from dataclasses import fields
from pathlib import Path

import pytest
from conftest import TINY, Command, build_components

from swin_lab.paths import CONF
from swin_lab.run.compose import composed
from swin_lab.run.instantiate import is_chosen
from swin_lab.run.settings import EvalConfig, TrainConfig

GROUPS = (
    "task",
    "model",
    "data",
    "augment",
    "mixing",
    "optimizer",
    "schedule",
    "ema",
    "trainer",
    "logger",
    "callbacks",
    "search",
    "experiment",
    "debug",
)
CHOICES = [
    (group, file.stem) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml")) if not file.stem.startswith("_")
]


def test_there_are_no_other_groups() -> None:
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} == set(GROUPS)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_builds(group: str, choice: str, request: pytest.FixtureRequest) -> None:
    names = {"timm": ["name=resnet10t"], "torchvision": ["name=mobilenet_v3_small"]}
    if choice == "transformers":
        names[choice] = [f"model.name={request.getfixturevalue('vit')}"]
    if group == "task" and choice == "simmim":
        names[choice] = ["task.mask_patch_size=8"]  # The default model takes images of 32 pixels.
    if group == "task" and choice == "distillation":
        names[choice] = ["task.teacher=RUN"]  # It is not opened here.
    derived = build_components(composed([f"{group}={choice}", *(names.get(choice, []) if group in ("model", "task") else [])]))
    assert derived["parameters"] > 0


@pytest.mark.parametrize(("job", "kind"), [("train", TrainConfig), ("eval", EvalConfig)])
def test_the_types_of_the_top_level_have_exactly_its_keys(job: str, kind: type) -> None:
    config = composed(["checkpoint=x"] if job == "eval" else [], job)
    names = {field.name for field in fields(kind)}
    assert set(config) <= names
    assert names - set(config) <= {"experiment", "debug", "data"}


@pytest.mark.parametrize("group", ["mixing", "ema"])
def test_the_choice_none_chooses_no_class(group: str) -> None:
    assert not is_chosen(group, composed([f"{group}=none"])[group])


@pytest.mark.parametrize("choice", [choice for group, choice in CHOICES if group == "augment"])
def test_every_augmentation_trains(command: Command, choice: str) -> None:
    assert command("train", *TINY, f"augment={choice}", "trainer.max_epochs=1").code == 0


@pytest.mark.parametrize("job", ["train", "eval"])
def test_the_configuration_can_be_printed(command: Command, job: str) -> None:
    arguments = ["checkpoint=x"] if job == "eval" else []
    outcome = command(job, *arguments, "--cfg", "job")
    assert outcome.code == 0
    assert "trainer:" in outcome.out


def test_experiments_need_no_plus(command: Command) -> None:
    for file in Path(CONF / "experiment").glob("*.yaml"):
        assert "+" not in file.read_text().split("\n", 3)[-1]
