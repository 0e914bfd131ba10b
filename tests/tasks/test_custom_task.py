"""A custom task with its own loss and no labels needs one Python file and one YAML file, and no change of the package."""

import math

import pytest
import torch
from conftest import TINY, Command, final_metrics, only_run, recorded

MEAN_COLOUR = '''
import torch.nn.functional as F
from torchmetrics import Metric
import torch
from swin_lab.training import DataDescription, MetricFormat, Monitor, Task


class MeanColour(Task):
    """Predicts the mean of every colour channel of an image."""

    monitor = Monitor("error", "min")
    metric_formats = {"error": MetricFormat("squared error", in_epoch_line=True)}

    def __init__(self, data: DataDescription, scale: float = 1.0) -> None:
        self.scale = scale

    def model_arguments(self):
        return {"num_classes": 3}

    def training_loss(self, network, batch, batch_seed):
        return F.mse_loss(network(batch[0]), self.target(batch))

    def evaluation_output(self, network, batch):
        return network(batch[0])

    def metrics(self):
        return SquaredError(self)

    def target(self, batch):
        return self.scale * batch[0].mean(dim=(2, 3))


class SquaredError(Metric):
    def __init__(self, task):
        super().__init__()
        self.task = task
        self.add_state("error", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, output, batch):
        self.error += (output - self.task.target(batch)).square().mean(dim=1).sum()
        self.images += len(output)

    def compute(self):
        return {"error": self.error / self.images, "images": self.images}
'''


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """Writes a folder with the two files."""
    folder = tmp_path / "mine"
    (folder / "task").mkdir(parents=True)
    (folder / "mean_colour.py").write_text(MEAN_COLOUR)
    (folder / "task" / "mean_colour.yaml").write_text("_target_: mean_colour.MeanColour\nscale: 1.0\n")
    return folder


def test_it_trains_and_reports_its_own_metric(command: Command, conf, tmp_path):
    outcome = command("train", "--config-dir", str(conf), *TINY, "task=mean_colour", "trainer.max_epochs=3", "ema=warm")
    assert outcome.code == 0, outcome.err
    run = only_run(tmp_path)
    result = recorded(run)
    assert result["derived.task"] == "MeanColour"
    assert [result[f"derived.monitor{part}"] for part in ("", "_mode", "_weights")] == ["error", "min", "ema"]
    assert set(final_metrics(result)) == {"val/error", "val_ema/error"}
    assert all(math.isfinite(value) for value in final_metrics(result).values())
    assert "EMA squared error" in outcome.out
    weights = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert weights["network.head.weight"].shape[0] == 3


def test_it_learns(command: Command, conf, tmp_path):
    """After ten epochs, the error is less than half of that after the first."""
    outcome = command("train", "--config-dir", str(conf), *TINY, "task=mean_colour", "trainer.max_epochs=10", "augment=none")
    assert outcome.code == 0, outcome.err
    lines = [line for line in outcome.out.splitlines() if line.startswith("epoch")]
    errors = [float(line.split("squared error ")[1].split()[0]) for line in lines]
    assert errors[-1] < 0.5 * errors[0]


def test_its_checkpoint_is_evaluated_if_trusted(command: Command, conf, tmp_path):
    command("train", "--config-dir", str(conf), *TINY, "task=mean_colour", "trainer.max_epochs=1")
    run = only_run(tmp_path)
    refused = command("eval", f"checkpoint={run}", "out=refused")
    assert (refused.code, "mean_colour.MeanColour" in refused.err, "trust=true" in refused.err) == (2, True, True)
    outcome = command("eval", "--config-dir", str(conf), f"checkpoint={run}", "trust=true", "out=here")
    assert outcome.code == 0, outcome.err
    trained, evaluated = (recorded(folder) for folder in (run, tmp_path / "here"))
    assert final_metrics(evaluated) == final_metrics(trained)


def test_a_misspelt_key_of_it_is_refused(command: Command, conf):
    outcome = command("train", "--config-dir", str(conf), *TINY, "task=mean_colour", "+task.scael=2")
    assert (outcome.code, "unknown key task.scael; did you mean scale?" in outcome.err) == (2, True)


def test_a_run_of_it_gives_initial_weights_to_a_classification_with_a_new_head(command: Command, conf, tmp_path):
    command("train", "--config-dir", str(conf), *TINY, "task=mean_colour", "trainer.max_epochs=1", "out=first")
    run = only_run(tmp_path / "first")
    outcome = command("train", *TINY, "trainer.max_epochs=1", f"weights={run}", "out=second")
    assert outcome.code == 0, outcome.err
    assert "head       new" in outcome.out


def test_early_stopping_monitors_its_metric(command: Command, conf):
    stopping = ["callbacks=early_stopping", "+callbacks.early_stopping.min_delta=1e3", "callbacks.early_stopping.patience=1"]
    outcome = command("train", "--config-dir", str(conf), *TINY, "task=mean_colour", "trainer.max_epochs=9", *stopping)
    assert outcome.code == 0, outcome.err
    assert len([line for line in outcome.out.splitlines() if line.startswith("epoch")]) == 2


def test_mixing_is_refused_for_a_task_that_does_not_mix(command: Command, conf):
    outcome = command("train", "--config-dir", str(conf), *TINY, "task=mean_colour", "mixing=imagenet")
    assert (outcome.code, "set mixing=none" in outcome.err) == (2, True)
