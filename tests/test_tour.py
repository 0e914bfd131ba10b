"""docs/tour.md: its code runs, its commands compose and parse, and its figures and links exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import typer.main
from conftest import ROOT, build_components

from swin_lab.commands.app import app
from swin_lab.run.compose import composed
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.settings import EvalConfig
from swin_lab.run.sweep.space import read_space

PAGE = ROOT / "docs" / "tour.md"
TEXT = PAGE.read_text()
LINES = [line.partition("  #")[0] for line in re.findall(r"^swin-lab .+", TEXT, re.M)]
"""The commands, without comments."""


def overrides(job: str) -> list[list[str]]:
    """Returns the words after `swin-lab train` or `swin-lab eval` of each such command."""
    return [shlex.split(line)[2:] for line in LINES if line.startswith(f"swin-lab {job} ")]


def test_its_code_writes_the_folder_and_its_training_composes_and_builds_on_it(tmp_path: Path, monkeypatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert len(list((tmp_path / "digits").glob("?/*.png"))) == 1797
    monkeypatch.chdir(tmp_path)
    (words,) = overrides("train")
    space = read_space([word for word in words if word != "-m"], [])
    examples = list(space.examples())
    build_components(composed([*examples[0], *(word for word in words if word.startswith("sweep"))]))


def test_its_evaluation_composes() -> None:
    (words,) = overrides("eval")
    assert build_dataclass("", EvalConfig, composed(words, "eval")).page


def test_its_other_commands_and_their_options_exist() -> None:
    lines = [line for line in LINES if shlex.split(line)[1] not in ("train", "eval")]
    assert len(lines) > 5
    for line in lines:
        command, arguments = typer.main.get_command(app), shlex.split(line)[1:]
        while arguments and arguments[0] in getattr(command, "commands", {}):
            command = command.commands[arguments.pop(0)]  # type: ignore[attr-defined]
        command.make_context("swin-lab", arguments)  # raises for unknown options and missing arguments


def test_its_figures_are_small_and_those_that_it_names() -> None:
    files = list((PAGE.parent / "tour").iterdir())
    assert {f"tour/{file.name}" for file in files} == set(re.findall(r"\]\((tour/[^)]+)\)", TEXT))
    assert max(file.stat().st_size for file in files) < 150_000


def test_its_links_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    assert all(target.startswith("https://") or (PAGE.parent / target).exists() for target in targets)
