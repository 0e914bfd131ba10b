"""benchmarks/all.py: what it refuses, and that a part that has succeeded is not run again."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("suite", ROOT / "benchmarks" / "all.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "suite", module)
    spec.loader.exec_module(module)
    return module


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
    part = suite.Part("some", [sys.executable, "-c", "print('why'); raise SystemExit(3)"], writes_files=False)
    assert [suite.run_part(part, tmp_path, False, None) for _ in range(2)] == [3, 3]
    assert (tmp_path / "some.txt").read_text() == "why\n"


def test_the_parts_of_the_self_test_are_those_of_a_gpu(suite: ModuleType) -> None:
    names = [part.name for part in suite.gpu_parts(["data=synthetic"])]
    assert [part.name for part in suite.self_test_parts()] == names
    assert len(set(names)) == len(names)
