"""Every configuration file composes and builds what it says."""

from itertools import chain
from pathlib import Path

import pytest
from conftest import TINY, Command
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from swin_lab.paths import CONF
from swin_lab.run import build

GROUPS = (
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
    "experiment",
    "debug",
)
CHOICES = [
    (group, file.stem) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml")) if not file.stem.startswith("_")
]


def composed(job: str, *overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(config_name=job, overrides=["data=synthetic", *overrides])
    return OmegaConf.to_container(config, resolve=False)  # type: ignore[return-value]


def test_there_are_no_other_groups() -> None:
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} == set(GROUPS)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_into_known_keys_only(group: str, choice: str) -> None:
    config = composed("train", f"{group}={choice}")
    build.check_top_keys(config, "train")
    for name in ("model", "optimizer", "schedule", "trainer", "augment", "mixing", "ema"):
        build.check_arguments(name, config[name])
    for node in chain((config["logger"] or {}).values(), (config["callbacks"] or {}).values()):
        build.check_arguments(group, node)


@pytest.mark.parametrize("choice", [choice for group, choice in CHOICES if group == "augment"])
def test_every_augmentation_trains(command: Command, choice: str) -> None:
    assert command("train", *TINY, f"augment={choice}", "trainer.max_epochs=1").code == 0


@pytest.mark.parametrize("job", ["train", "eval"])
def test_the_configuration_can_be_printed(command: Command, job: str) -> None:
    typed = ["checkpoint=x"] if job == "eval" else []
    outcome = command(job, *typed, "--cfg", "job")
    assert outcome.code == 0
    assert "trainer:" in outcome.out


def test_experiments_need_no_plus(command: Command) -> None:
    for file in Path(CONF / "experiment").glob("*.yaml"):
        assert "+" not in file.read_text().split("\n", 3)[-1]
