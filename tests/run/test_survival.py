"""`benchmarks/survival.py`: a run that is killed at random moments ends to the bit like one that nobody kills."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "processes"), [(20, 1), (20, 2)])
def test_a_run_that_is_killed_at_random_moments_ends_like_one_that_is_not_killed(kills: int, processes: int) -> None:
    """In a process of its own, which forks the runs: pytest's has threads."""
    arguments = ["--kills", str(kills), "--processes", str(processes), "trainer.max_epochs=2", "checkpoint.every_n_updates=2"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "survival.py"), *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{kills} kills in ")
    assert done.stdout.endswith("the same to the bit\n")
