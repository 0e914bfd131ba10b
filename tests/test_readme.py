"""Checks the commands, code, links and tables of the README and the pages in docs/."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from conftest import ROOT, Command, build_components
from PIL import Image

import swin_lab
from swin_lab.commands.app import app
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.compose import MISSING, composed
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.settings import EvalConfig, RestoreConfig
from swin_lab.run.sweep.space import read_space
from swin_lab.run.trainer import build_trainer

README = (ROOT / "README.md").read_text()
WITH_TESTS_OF_THEIR_OWN = {"extend.md", "how-swin-works.md", "tour.md"}
PAGES = {"README.md": README} | {
    f"docs/{page.name}": page.read_text()
    for page in sorted((ROOT / "docs").glob("*.md"))
    if page.name not in WITH_TESTS_OF_THEIR_OWN
}


def commands(page: str) -> list[str]:
    """Lines that start with python, with shell variables inserted."""
    variables = dict(re.findall(r"^([A-Z])=\"?([^\"\n]*)\"?$", page, re.M))
    found = [line.split("#")[0].strip() for line in page.splitlines() if line.startswith("python ")]
    for name, value in reversed(variables.items()):
        found = [line.replace(f"${name}", value) for line in found]
    return found


COMMANDS = [line for page in PAGES.values() for line in commands(page)]
TRAIN = [line.removeprefix("python train.py") for line in COMMANDS if line.startswith("python train.py")]
EVAL = [line.removeprefix("python eval.py") for line in COMMANDS if line.startswith("python eval.py")]


def first_values(line: str) -> list[str]:
    """Returns the overrides of the first run of a sweep, with those of the sweep itself."""
    words = [word for word in shlex.split(line) if word not in ("-m", "--help")]
    return [*next(read_space(words, []).examples()), *(word for word in words if word.startswith(("search", "sweep")))]


@pytest.mark.parametrize("line", sorted(set(TRAIN)))
def test_its_commands_compose_and_build(line: str) -> None:
    assert build_components(composed(first_values(line)))["parameters"] > 0


@pytest.mark.parametrize("line", sorted(set(EVAL)))
def test_its_evaluations_compose_and_build(line: str) -> None:
    config = composed(first_values(line), "eval")
    build_dataclass("", EvalConfig, config)
    build_dataclass("transfer", RestoreConfig, config["transfer"])
    build_trainer(config["trainer"] | {"accelerator": "cpu"}, "32-true")
    assert config["checkpoint"] != MISSING


@pytest.mark.slow
def test_its_python_code_runs(tmp_path: Path) -> None:
    """The snippets find weights and photographs of the names that they use."""
    model = swin_lab.create_model("swin_micro_patch4_window4_32", num_classes=2)
    model.class_names = ("cat", "dog")
    grey = (0.5, 0.5, 0.5)
    model.preprocessing = Preprocessing(
        img_size=(32, 32), channels=3, crop_pct=1.0, interpolation="bicubic", mean=grey, std=grey
    )
    swin_lab.save_weights(model, tmp_path / "pets.safetensors")
    (tmp_path / "photos").mkdir()
    for name, size in (("a.jpg", (50, 40)), ("b.jpg", (30, 60))):
        Image.new("RGB", size, "red").save(tmp_path / "photos" / name)
    snippets = re.findall(r"```python\n(.*?)```", README, re.S)
    printed = [
        subprocess.run(
            [sys.executable, "-c", snippet],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for snippet in snippets
    ]
    assert [done.returncode for done in printed] == [0] * len(snippets), [done.stderr for done in printed]
    assert re.fullmatch(r"a\.jpg (cat|dog) \d+\.\d%\nb\.jpg (cat|dog) \d+\.\d%\n", printed[-1].stdout)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_images_exist(page: str) -> None:
    text = PAGES[page]
    targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert targets
    for target in targets:
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


def test_the_pages_use_commands_and_options_of_swin_lab_that_exist() -> None:
    lines = re.findall(r"^swin-lab ([^#\n]+)", "\n".join(PAGES.values()), re.M)
    assert len(lines) > 25
    for line in lines:
        command, arguments = typer.main.get_command(app), shlex.split(line)
        while arguments and arguments[0] in getattr(command, "commands", {}):
            command = command.commands[arguments.pop(0)]  # type: ignore[attr-defined]
        command.make_context("swin-lab", arguments)  # raises for unknown options and missing arguments


def test_its_table_lists_every_package() -> None:
    packages = {f"swin_lab/{path.parent.name}" for path in (ROOT / "swin_lab").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"\[`(swin_lab/\w+)`\]", README))


def form(text: str) -> list[str]:
    """Lines without what differs between runs: numbers, times, spaces, the width of the table, and epochs after the first."""
    lines = [re.sub(r"\d[\d.,:e-]*(_\d[\d:-]*)?", "#", line).strip() for line in text.splitlines() if line.strip("┌┬─┐└┴┘ \n")]
    lines = [re.sub(r"\s+", " ", line) for line in lines if not line.startswith("...")]
    return list(dict.fromkeys(line.partition(" # left")[0] for line in lines))


@pytest.mark.slow
def test_the_output_it_shows_has_the_form_of_a_run(process: Command) -> None:
    shown = README[README.index("\nmodel      SwinTransformer") :]
    outcome = process("train", "trainer.max_epochs=2", "schedule.warmup_epochs=0.5", "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert form(shown[: shown.index("```")]) == form(outcome.out.replace(f"{ROOT}/", ""))


def test_make_help_lists_its_targets() -> None:
    printed = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    targets = ["help", "train", "dashboard", "test", "test-slow", "test-lowest", "check", "bench", "bench-gpu", "clean"]
    assert [line.split()[1] for line in printed.splitlines()] == targets


@pytest.mark.slow
def test_the_wheel_contains_the_configurations_and_the_commands(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "site")], check=True)
    code = "import swin_lab as s; print(s.__file__, len(s.list_models()), s.create_model('swin_s3_tiny_224').config.windows)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")}
    )
    assert done.stdout.startswith(str(tmp_path)), done.stderr
    assert "35 ((7, 7), (7, 7), (14, 14), (7, 7))" in done.stdout
    for arguments in (["init", "mine"], ["train", "--config-dir", "mine/conf", "experiment=my_experiment", "--cfg", "job"]):
        done = subprocess.run(
            [sys.executable, "-m", "swin_lab", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "site")},
        )
        assert done.returncode == 0, done.stderr
    assert "name: my_experiment" in done.stdout
