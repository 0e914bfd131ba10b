"""`swin-lab init DIR`: the new project runs unchanged, and nothing is overwritten."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command, only_run

SHORT = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.limit_train_batches=3"]


@pytest.fixture
def project(cli: Command, tmp_path: Path) -> Path:
    """Creates a new project; returns its folder."""
    outcome = cli("init", "project")
    assert outcome.code == 0, outcome.printed
    return tmp_path / "project"


def script(project: Path, name: str, *arguments: str) -> str:
    """Runs a script of the project in the project's folder; returns what it prints."""
    done = subprocess.run([sys.executable, name, *arguments], cwd=project, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_experiment_runs_as_a_script_and_as_a_command(project: Path, cli: Command, tmp_path: Path) -> None:
    by_script = script(project, "train.py", "experiment=my_experiment", *SHORT)
    by_command = cli("train", "--config-dir", "project/conf", "experiment=my_experiment", *SHORT)
    assert by_command.code == 0, by_command.printed
    lines = [re.search(r"epoch .* top-1 \S+", printed) for printed in (by_script, by_command.out)]
    assert lines[0] is not None
    assert lines[1] is not None
    assert lines[0][0] == lines[1][0]
    assert only_run(project / "runs" / "my_experiment")
    assert only_run(tmp_path / "runs" / "my_experiment")


@pytest.mark.slow
def test_the_model_next_to_the_configurations_trains_and_is_evaluated(project: Path) -> None:
    script(project, "train.py", "experiment=my_experiment", "model=my_model", *SHORT)
    run = only_run(project / "runs")
    assert "top-1" in script(project, "eval.py", f"checkpoint={run}", "trust=true", "trainer.accelerator=cpu")


def test_commands_of_the_readme_compose(project: Path) -> None:
    lines = re.findall(r"^python train.py ([^#\n]+)", (project / "README.md").read_text(), re.M)
    assert len(lines) == 4
    for line in lines:
        arguments = [re.sub(r"=([^,]+),.*", r"=\1", part) for part in line.split() if part != "-m"]
        assert "optimizer:" in script(project, "train.py", *arguments, "--cfg", "job")


def test_recipes_of_the_project_are_plotted_and_compared(project: Path, cli: Command) -> None:
    shared = ["experiment=my_experiment", "--config-dir", "project/conf"]
    assert cli("lr", "rates.png", *shared).code == 0
    outcome = cli("recipe", "diff", "optimizer.lr=1", *shared)
    assert "optimizer.lr" in outcome.out


@pytest.mark.parametrize("name", ["file", "full"])
def test_nothing_is_overwritten(cli: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "train.py").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    outcome = cli("init", name)
    assert outcome.code == 2
    assert "is not an empty folder; nothing was written" in outcome.err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert cli("init", "empty").code == 0
    assert (tmp_path / "empty" / "conf" / "experiment" / "my_experiment.yaml").is_file()


def test_a_folder_that_cannot_be_created_is_refused(cli: Command) -> None:
    outcome = cli("init", "/dev/null/project")
    assert (outcome.code, "cannot write /dev/null/project" in outcome.err) == (2, True)


def test_printed_commands_can_be_copied_from_a_folder_with_a_space(cli: Command) -> None:
    printed = cli("init", "my project").out
    assert "python 'my project/train.py' experiment=my_experiment" in printed
    assert "swin-lab train --config-dir 'my project/conf' experiment=my_experiment" in printed
