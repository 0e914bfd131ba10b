"""What the README and the pages in docs/ say is so."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Command

README = (ROOT / "README.md").read_text()
REPRODUCE = (ROOT / "docs" / "reproduce.md").read_text()


def commands(page: str) -> list[str]:
    """Lines that start with python, shell variables put in."""
    variables = dict(re.findall(r"^([A-Z])=\"?([^\"\n]*)\"?$", page, re.M))
    found = [line.split("#")[0].strip() for line in page.splitlines() if line.startswith("python ")]
    for name, value in reversed(variables.items()):
        found = [line.replace(f"${name}", value) for line in found]
    return found


COMMANDS = commands(README) + commands(REPRODUCE)


@pytest.mark.parametrize("typed", [line for line in COMMANDS if line.startswith("python train.py") or "eval.py" in line])
def test_its_commands_compose(command: Command, typed: str) -> None:
    _, script, *arguments = shlex.split(typed)
    swept = [argument for argument in arguments if argument != "-m"]
    single = [re.sub(r"=([^\[,]+),.*", r"=\1", argument) for argument in swept]
    assert command(script.removesuffix(".py"), *single, "--cfg", "job").code == 0


def test_its_python_runs() -> None:
    for snippet in re.findall(r"```python\n(.*?)```", README, re.S):
        done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/reproduce.md"])
def test_links_and_images_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert targets
    for target in targets:
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


def test_the_pages_commands_for_swin_lab_are_verbs_that_there_are() -> None:
    from swin_lab.cli import _parser

    typed = re.findall(r"^swin-lab ([^#\n]+)", README + "\n" + REPRODUCE, re.M)
    assert len(typed) > 5
    for line in typed:
        _parser().parse_args(shlex.split(line))


def test_its_map_lists_every_room() -> None:
    rooms = {f"swin_lab/{path.parent.name}" for path in (ROOT / "swin_lab").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"\[`(swin_lab/\w+)`\]", README))


def test_the_output_it_shows_has_the_form_of_today() -> None:
    for line in (
        "device     1 x cpu, precision 32-true",
        "batch      32 = 1 device x 32 images",
        "dashboard  tensorboard --logdir runs",
    ):
        assert line in README


def test_make_help_lists_its_targets() -> None:
    said = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert [line.split()[1] for line in said.splitlines()] == ["help", "train", "test", "check", "clean"]


@pytest.mark.slow
def test_the_wheel_carries_the_configurations(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "site")], check=True)
    code = "import swin_lab as s; print(s.__file__, len(s.list_models()), s.create_model('swin_s3_tiny_224').shape.windows)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")}
    )
    assert done.stdout.startswith(str(tmp_path)), done.stderr
    assert "24 ((7, 7), (7, 7), (14, 14), (7, 7))" in done.stdout
