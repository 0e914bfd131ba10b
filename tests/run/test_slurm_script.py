"""The SLURM script queues itself again after a signal or a lost process, and after nothing else."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

AGAIN = "requeue 42\n"
SCRIPT = ROOT / "examples" / "slurm" / "train.sbatch"


def submitted(folder: Path, code: int, environment: dict[str, str] | None = None) -> tuple[int, list[str], str]:
    """Runs the script with an srun that ends with a code; returns its exit code, the words of srun, the calls of scontrol."""
    for name, body in (("srun", f'printf "%s\\n" "$@" > srun.txt; exit {code}'), ("scontrol", 'echo "$@" >> scontrol.txt')):
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "42", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_SUBMIT_DIR": str(folder)}
    variables = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | slurm | (environment or {})
    done = subprocess.run(["bash", str(SCRIPT), "name=mine", "data.root=/a b"], cwd=folder, env=variables)
    calls = folder / "scontrol.txt"
    return done.returncode, (folder / "srun.txt").read_text().splitlines(), calls.read_text() if calls.exists() else ""


@pytest.mark.parametrize(("code", "calls"), [(0, ""), (1, ""), (2, ""), (130, ""), (75, AGAIN), (76, AGAIN), (137, AGAIN)])
def test_the_job_is_queued_again_only_where_it_can_continue(tmp_path: Path, code: int, calls: str) -> None:
    assert submitted(tmp_path, code)[::2] == (code, calls)


def test_a_job_that_was_restarted_too_often_is_not_queued_again(tmp_path: Path) -> None:
    assert submitted(tmp_path, 76, {"SLURM_RESTART_COUNT": "3", "MAX_RESTARTS": "3"})[::2] == (76, "")


def test_one_process_per_gpu_resumes_the_run_of_the_given_name(tmp_path: Path) -> None:
    words = submitted(tmp_path, 0)[1]
    assert words[words.index("python") :] == [
        *("python", "train.py", "trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2", "resume=auto"),
        *("name=mine", "data.root=/a b"),
    ]


def test_slurm_warns_two_minutes_before_the_end_and_may_queue_again() -> None:
    lines = SCRIPT.read_text().splitlines()
    assert "#SBATCH --signal=USR1@120" in lines
    assert "#SBATCH --requeue" in lines
