"""`swin-lab train` and `swin-lab eval`: the same runs as train.py and eval.py, on one device and on several."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY, Command, final_metrics, only_run, recorded

ONE_EPOCH = [*TINY, "trainer.max_epochs=1"]
DDP = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


@pytest.fixture
def console_script(tmp_path: Path) -> Path:
    """Writes the file that pip creates for an entry of [project.scripts]."""
    file = tmp_path / "bin" / "swin-lab"
    file.parent.mkdir()
    file.write_text(f"#!{sys.executable}\nimport sys\nfrom swin_lab.commands.app import main\nsys.exit(main())\n")
    file.chmod(0o755)
    return file


def test_a_run_is_that_of_train_py_and_its_hints_name_swin_lab(cli: Command, command: Command, tmp_path: Path) -> None:
    outcome = cli("train", *ONE_EPOCH, "out=one")
    assert outcome.code == 0, outcome.printed
    assert f"evaluate   swin-lab eval checkpoint={only_run(tmp_path / 'one').relative_to(tmp_path)}" in outcome.out
    other = command("train", *ONE_EPOCH, "out=two")
    assert f"evaluate   python {ROOT}/eval.py checkpoint={only_run(tmp_path / 'two').relative_to(tmp_path)}" in other.out
    one, two = (recorded(only_run(tmp_path / name)) for name in ("one", "two"))
    assert final_metrics(one) == final_metrics(two)


def test_the_command_that_a_run_prints_evaluates_it(cli: Command, tmp_path: Path) -> None:
    hint = next(line for line in cli("train", *ONE_EPOCH).out.splitlines() if line.startswith("evaluate"))
    outcome = cli(*hint.split()[2:], "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.printed
    evaluated = json.loads(next(tmp_path.rglob("eval_*/results.json")).read_text())
    trained = recorded(only_run(tmp_path))
    assert evaluated["metrics.final.acc1"] == trained["metrics.final.acc1"]


@pytest.mark.parametrize("job", ["train", "eval"])
def test_help_names_the_command_that_was_used(cli: Command, job: str) -> None:
    outcome = cli(job, "--help")
    assert outcome.code == 0
    printed = outcome.out
    assert f"  swin-lab {job} " in printed
    assert f"python {job}.py" not in printed


MODULE = """
from torch import Tensor, nn

class Linear(nn.Module):
    def __init__(self, num_classes: int, img_size: int = 32) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * img_size**2, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image.flatten(1))
"""


@pytest.mark.parametrize("place", [".", "project", "project/conf"])
def test_modules_next_to_the_configuration_can_be_targets(cli: Command, tmp_path: Path, place: str) -> None:
    """The current directory, the configuration directory and its parent are importable."""
    name = f"linear_model_{len(place)}"
    (tmp_path / "project" / "conf" / "model").mkdir(parents=True)
    (tmp_path / "project" / "conf" / "model" / "linear.yaml").write_text(f"_target_: {name}.Linear\nimg_size: 32\n")
    (tmp_path / place / f"{name}.py").write_text(MODULE)
    overrides = [override for override in ONE_EPOCH if not override.startswith("model.")]
    outcome = cli("train", "--config-dir", "project/conf", *overrides, "model=linear")
    assert outcome.code == 0, outcome.printed


def test_misspelt_keys_of_a_file_in_the_configuration_directory_are_found(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("defaults: [swin_micro_patch4_window4_32]\nmy_depth: 3\n")
    outcome = cli("train", "--config-dir=conf", "model=mine", "model.my_dpth=4")
    assert (outcome.code, outcome.err) == (2, "error: unknown key model.my_dpth; did you mean model.my_depth?\n")


def test_a_further_argument_of_the_optimizer_is_explained(cli: Command) -> None:
    outcome = cli("train", "optimizer._target_=torch.optim.SGD", "optimizer.momentum=0.9")
    assert "+optimizer.momentum=... passes a further argument" in outcome.err
    outcome = cli("train", "optimizer._target_=torch.optim.SGD", "+optimizer.momentum=0.9")
    assert "removed with ~optimizer.KEY" in outcome.err


def test_a_configuration_file_that_is_not_yaml_is_named_with_its_line(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("depths: [1, 1]\n depth: 3\n")
    outcome = cli("train", "--config-dir=conf", "model=mine")
    assert outcome.code == 2
    assert "mine.yaml, line 2" in outcome.err
    assert len(outcome.err.splitlines()) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("start", ["console script", "module", "sweep", "torchrun"])
def test_two_processes_make_one_run(console_script: Path, tmp_path: Path, start: str) -> None:
    """Lightning and sweeps start further processes with the command line of the first one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    program = {
        "console script": [str(console_script), "train"],
        "module": [sys.executable, "-m", "swin_lab", "train"],
        "sweep": [str(console_script), "train", "-m", "seed=1,2"],
        "torchrun": [*torchrun, "-m", "swin_lab", "train"],
    }[start]
    folder = tmp_path / "empty"
    folder.mkdir()
    done = subprocess.run([*program, *ONE_EPOCH, *DDP], cwd=folder, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(file.read_text()) for file in folder.rglob("results.json")]
    assert len(results) == (2 if start == "sweep" else 1)
    assert {result["run.images"] for result in results} == {30}
    printed = done.stdout + "".join(file.read_text() for file in folder.rglob("output.txt"))
    assert "16 = 2 devices x 8 images" in printed
    program = "swin-lab" if program[0] == str(console_script) else "python -m swin_lab"
    assert results[0]["run.eval_command"] == f"{program} eval"
