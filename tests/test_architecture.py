"""The rules of the house: which room knows which, how long a file may be, what a signature may not have."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "swin_lab"
FILES = sorted(PACKAGE.rglob("*.py"))
MAY_KNOW = {
    "ops": set(),
    "models": {"ops"},
    "weights": {"ops", "models"},
    "data": set(),
    "training": set(),
    "report": set(),
    "run": {"ops", "models", "weights", "data", "training", "report"},
    "cli.py": {"models", "weights", "run"},
    "__init__.py": {"models", "weights"},
}
"""Rooms that a room may import from."""
FRAMEWORKS = {"hydra": {"run"}, "lightning": {"data", "training", "run"}, "wandb": {"run"}}
"""Rooms that may import a framework."""
MAX_LINES = 400


def imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_room_imports_only_rooms_below_it(file: Path) -> None:
    here = room(file)
    there = {name.split(".")[1] for name in imports(file) if name.startswith("swin_lab.")} & set(MAY_KNOW)
    assert there - {here} <= MAY_KNOW.get(here, set())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_frameworks_stay_in_their_rooms(file: Path) -> None:
    for name in imports(file):
        assert room(file) in FRAMEWORKS.get(name.split(".")[0], {room(file)}), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_file_is_long_and_no_signature_swallows_keywords(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.args.kwarg is None, node.name


def test_every_room_is_listed() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == {
        name for name in MAY_KNOW if not name.endswith(".py")
    }


def test_models_and_ops_work_without_the_frameworks() -> None:
    blocked = "import sys\nfor name in ('lightning', 'hydra', 'wandb', 'torchmetrics', 'sklearn'): sys.modules[name] = None\n"
    use = "import torch, swin_lab\nprint(swin_lab.create_model('swin_micro_patch4_window4_32')(torch.rand(1, 3, 32, 32)).shape)"
    done = subprocess.run([sys.executable, "-c", blocked + use], capture_output=True, text=True)
    assert done.stdout.strip() == "torch.Size([1, 1000])", done.stderr


def test_the_package_imports_without_wandb() -> None:
    code = "import sys; sys.modules['wandb'] = None; import swin_lab.run.fit, swin_lab.run.evaluate"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_importing_a_module_prints_nothing() -> None:
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES if file.name != "__init__.py"]
    done = subprocess.run([sys.executable, "-c", f"import {', '.join(names)}"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
