"""benchmarks/all.py: its parts, what it refuses, and that a part that has succeeded is not run again."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT, Command

from swin_lab.data import Folder
from swin_lab.record import flat
from swin_lab.run.checks import check_settings
from swin_lab.run.compose import composed

PHOTOS = ["data=folder", "data.root=photos"]


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("all", monkeypatch)


def failing(suite: ModuleType, name: str) -> Any:
    return suite.Part(name, [sys.executable, "-c", "print('why'); raise SystemExit(3)"], writes_files=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_its_benchmarks_end_with_one_line_and_exit_code_2() -> None:
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "all.py", "gpu"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: torch sees no CUDA device")
    assert len(done.stderr.splitlines()) == 1


def test_a_part_that_has_succeeded_with_the_same_source_is_skipped(suite: ModuleType, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'a').write('x')"
    part = suite.Part("some", [sys.executable, "-c", code], writes_files=False)
    assert [suite.run_part(part, tmp_path / "results", again, None) for again in (False, False, True)] == [0, 0, 0]
    assert ran.read_text() == "xx"
    assert json.loads((tmp_path / "results" / "parts.json").read_text())["some"]["source"] == suite.source_digest()


def test_a_part_that_fails_is_run_again(suite: ModuleType, tmp_path: Path) -> None:
    part = failing(suite, "some")
    assert [suite.run_part(part, tmp_path, False, None) for _ in range(2)] == [3, 3]
    assert (tmp_path / "some.txt").read_text() == "why\n"


def test_the_parts_after_one_that_fails_run_and_it_is_named_at_the_end(
    suite: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = suite.Part("fine", [sys.executable, "-c", "print('done')"], writes_files=False, not_exercised="CUDA graphs")
    monkeypatch.setattr(suite, "self_test_parts", lambda folder: [failing(suite, "broken"), fine])
    monkeypatch.setattr(sys, "argv", ["all.py", "gpu", "--cpu", "--out", str(tmp_path)])
    assert suite.main() == 1
    assert {name: part["code"] for name, part in json.loads((tmp_path / "parts.json").read_text()).items()} == {
        "broken": 3,
        "fine": 0,
    }
    assert (tmp_path / "fine.txt").read_text() == "done\n\nNot exercised: CUDA graphs\n"
    captured = capsys.readouterr()
    assert "== broken: failed with 3" in captured.out
    assert captured.err.startswith("failed: broken;")


def test_a_part_that_takes_too_long_is_stopped(suite: ModuleType, tmp_path: Path) -> None:
    part = suite.Part("slow", [sys.executable, "-c", "input()"], writes_files=False)
    assert suite.run_part(part, tmp_path, False, 0.01) == 1


def test_the_parts_of_the_self_test_are_those_of_a_gpu(suite: ModuleType, tmp_path: Path) -> None:
    names = [part.name for part in suite.gpu_parts(tmp_path, PHOTOS)]
    parts = {part.name: part for part in suite.self_test_parts(tmp_path)}
    assert list(parts) == names
    assert len(set(names)) == len(names)
    assert suite.NOT_ON_A_CPU.keys() <= parts.keys()
    assert "compile=true" in parts["cuda_graphs"].command
    assert not [part.name for part in parts.values() if suite.GRAPHS in part.command]


def test_every_switch_of_the_documentation_is_measured_by_a_part_unless_it_is_the_default(
    suite: ModuleType, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    table = page.partition("## Which switch to take")[2].partition("\n## ")[0]
    cells = [line.split("|")[2] for line in table.splitlines() if line.startswith("|")]
    switches = {switch for cell in cells for code in re.findall("`([^`]+)`", cell) for switch in code.split() if "=" in switch}
    assert len(switches) >= 9
    default = flat(composed(PHOTOS))
    changed = {switch for switch in switches if str(default.get(switch.partition("=")[0])) != switch.partition("=")[2]}
    measured = {word for part in suite.gpu_parts(tmp_path, PHOTOS) for word in part.command}
    assert changed - measured == set()
    assert switches - changed == {"data.decoder=pillow"}


def test_the_commands_of_all_parts_are_accepted(
    suite: ModuleType, cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the measurement: options, names of networks, and overrides as a run on a GPU would check them."""
    from swin_lab.bench import main
    from swin_lab.models import model_config

    given: list[Any] = []
    for name in ("model", "data", "run"):
        monkeypatch.setattr(main, f"benchmark_{name}", lambda words, **options: given.append((words, options)))
    parts = [*suite.cpu_parts(PHOTOS), *suite.gpu_parts(tmp_path, PHOTOS)]
    for part in parts:
        if "swin_lab" in part.command:
            words = part.command[part.command.index("swin_lab") + 1 :]
            outcome = cli(*words, "--out", tmp_path, "--name", part.name, "--overwrite")
            assert outcome.code == 0, f"{part.name}: {outcome.err}"
            arguments, _ = given.pop()
            for argument in arguments if words[1] == "model" else ():
                model_config(argument)
            if words[1] != "model":
                check_settings(composed(arguments))
        elif part.name != "tests":
            module = script(Path(part.command[1]).stem, monkeypatch)
            with monkeypatch.context() as patched:
                patched.setattr(torch.cuda, "is_available", lambda: True)
                patched.setattr(sys, "argv", part.command[1:])
                module.parse_arguments()


def test_a_folder_of_images_becomes_two_sets_of_enough_images(suite: ModuleType, tmp_path: Path) -> None:
    photos = suite.generate_photos(tmp_path / "photos", 5, side=40)
    for _ in range(2):  # The links of an earlier run are replaced.
        overrides = suite.as_sets(photos, tmp_path / "sets", 12)
        assert overrides == ["data=folder", f"data.root={tmp_path / 'sets'}"]
        source = Folder(str(tmp_path / "sets"))
        assert (len(source.train.labels), len(source.val.labels)) == (15, 15)
    assert suite.as_sets(tmp_path / "sets", tmp_path / "unused", 12)[1] == f"data.root={tmp_path / 'sets'}"
    assert not (tmp_path / "unused").exists()
