"""The package layout: which package imports which, how long files and functions are, what a signature must not have."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "swin_lab"
FILES = sorted(PACKAGE.rglob("*.py"))
ALLOWED_IMPORTS = {
    "ops": set(),
    "models": {"ops"},
    "weights": {"ops", "models"},
    "data": set(),
    "training": set(),
    "tasks": {"training", "models"},
    "report": set(),
    "run": {"ops", "models", "weights", "data", "training", "tasks", "report"},
    "inference": {"ops", "models", "weights", "data", "training", "tasks", "report", "run"},
    "bench": {"ops", "models", "weights", "data", "training", "tasks", "report", "run"},
    "commands": {"ops", "models", "weights", "data", "training", "tasks", "report", "run", "inference", "bench"},
    "__main__.py": {"commands"},
    "__init__.py": {"models", "weights", "data", "inference"},
}
"""Packages that a package may import, besides the modules at the top level; they are listed from the bottom to the top."""
FRAMEWORKS = {
    "hydra": {"run"},
    "lightning": {"data", "training", "tasks", "run", "bench"},
    "wandb": {"run"},
    "mlflow": {"run"},
    "optuna": {"run"},
    "submitit": {"run"},
}
"""Packages that may import a framework."""
MAX_LINES = {"run": 200}
"""Maximum length of a file by package; 400 for the others."""
MAX_FUNCTION_LINES = {"run": 50}
"""Maximum length of a function by package, without its signature; 60 for the others."""


def imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


def package(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_package_imports_only_packages_below_it(file: Path) -> None:
    here = package(file)
    there = {name.split(".")[1] for name in imports(file) if name.startswith("swin_lab.")} & set(ALLOWED_IMPORTS)
    assert there - {here} <= ALLOWED_IMPORTS.get(here, set())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_frameworks_are_imported_by_their_packages_only(file: Path) -> None:
    for name in imports(file):
        assert package(file) in FRAMEWORKS.get(name.split(".")[0], {package(file)}), name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_file_or_function_is_long_and_no_signature_accepts_any_keyword(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= MAX_LINES.get(package(file), 400)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.args.kwarg is None, node.name
            length = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
            assert length <= MAX_FUNCTION_LINES.get(package(file), 60), node.name


def test_every_package_is_listed() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == {
        name for name in ALLOWED_IMPORTS if not name.endswith(".py")
    }


@pytest.mark.slow
def test_models_and_ops_work_without_the_frameworks() -> None:
    """Triton is not imported either before a GPU needs it."""
    names = ("lightning", "hydra", "wandb", "torchmetrics", "sklearn", "triton")
    blocked = f"import sys\nfor name in {names}: sys.modules[name] = None\n"
    use = "import torch, swin_lab\nprint(swin_lab.create_model('swin_micro_patch4_window4_32')(torch.rand(1, 3, 32, 32)).shape)"
    done = subprocess.run([sys.executable, "-c", blocked + use], capture_output=True, text=True)
    assert done.stdout.strip() == "torch.Size([1, 1000])", done.stderr


@pytest.mark.slow
def test_the_package_imports_without_wandb_and_does_not_import_timm_before_it_is_used() -> None:
    code = "import sys; sys.modules['wandb'] = None; import swin_lab.run.evaluate, swin_lab.run.fit; "
    code += "print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.slow
def test_importing_a_module_prints_nothing() -> None:
    optional = set() if find_spec("nvidia") and find_spec("nvidia.dali") else {PACKAGE / "data" / "dali" / "graph.py"}
    files = [file for file in FILES if file.name != "__init__.py" and file not in optional]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    done = subprocess.run([sys.executable, "-c", f"import {', '.join(names)}"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
