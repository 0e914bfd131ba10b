"""docs/extend.md: every file and every command in it is written and run unchanged."""

import re
import shlex

import pytest
from conftest import ROOT, Command

PAGE = (ROOT / "docs" / "extend.md").read_text()
FILES = re.findall(r"^`([\w/.]+)`\n\n```(?:python|yaml)\n(.*?)```", PAGE, re.M | re.S)
COMMANDS = re.findall(r"^swin-lab train (.+)$", PAGE, re.M)
SMALL = [
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=3",
    "trainer.accelerator=cpu",
    "schedule.warmup_epochs=0",
    "name=x",
]
"""What makes a run short; a custom model does not have the keys of a Swin Transformer."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes the folder that the page describes."""
    for name, text in FILES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() + "\n\n" if file.exists() else "") + text)
    return tmp_path


def test_the_page_has_an_example_for_every_kind_of_part():
    folders = {name.split("/")[1] for name, _ in FILES if name.startswith("conf/")}
    assert folders == {"model", "data", "augment", "optimizer", "schedule", "callbacks", "logger", "task"}
    assert len(COMMANDS) == 8


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_train_and_the_printed_command_evaluates(command: Command, project, line):
    arguments = shlex.split(line)
    given = SMALL[3:] if "model=tiny_conv" in line else SMALL
    outcome = command("train", *arguments, *given)
    assert outcome.code == 0, outcome.err
    assert (project / "runs" / "x").is_dir()
    hint = re.search(r"^evaluate +python \S*eval\.py (.+)$", outcome.out, re.M)
    assert hint is not None
    evaluated = command("eval", *shlex.split(hint[1]), "trainer.accelerator=cpu")
    assert evaluated.code == 0, evaluated.err
