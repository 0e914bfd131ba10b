"""What all tests share: one thread per process, no network, and commands run as a user runs them."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; waiting threads would slow each other down
os.environ["WANDB_MODE"] = "offline"

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TINY = [
    "model.embed_dim=8",
    "model.depths=[1,2]",
    "model.num_heads=[1,2]",
    "data=synthetic",
    "data.num_classes=6",
    "data.train_images=64",
    "data.val_images=30",
    "global_batch=16",
    "schedule.warmup_epochs=0.5",
    "optimizer.lr=3e-3",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "name=tiny",
]
"""Overrides of train.py for a run of about a second."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew instead of comparing with them")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


Command = Callable[..., Outcome]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs train.py or eval.py inside this process, in an empty folder: command("train", "key=value", ...)."""
    from swin_lab.run.entry import RUN_DIR, main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(RUN_DIR, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(job: str, *arguments: str) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [str(ROOT / f"{job}.py"), *arguments])
        try:
            code = main(job)
        except SystemExit as left:  # --help, --cfg
            code = int(left.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """Runs train.py or eval.py as a process of its own, in an empty folder."""

    def run(job: str, *arguments: str, timeout: float = 240) -> Outcome:
        done = subprocess.run(
            [sys.executable, str(ROOT / f"{job}.py"), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=timeout,
            env=os.environ | {"COLUMNS": "200"},
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def only_run(folder: Path) -> Path:
    """The one run directory under a folder."""
    runs = [file.parent for file in folder.rglob("results.json") if not file.parent.name.startswith("eval_")]
    assert len(runs) == 1, runs
    return runs[0]
