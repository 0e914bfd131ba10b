"""`precision=bf16-true`: weights in bfloat16, their moving average in float32, and checkpoints that load everywhere."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, final_metrics, only_run, recorded

import swin_lab


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Path:
    assert command("train", *TINY, "precision=bf16-true", "ema=warm", "model.drop_path_rate=0.2").code == 0
    return only_run(tmp_path)


def evaluated(command: Command, run: Path, *overrides: str) -> dict[str, float]:
    folder = run.parent / "-".join(("evaluation", *overrides)).replace("=", "-")
    outcome = command("eval", f"checkpoint={run}", f"out={folder}", *overrides)
    assert outcome.code == 0, outcome.err
    found: dict[str, float] = final_metrics(folder)
    return found


def test_a_checkpoint_evaluates_to_the_metrics_of_its_run_and_loads_in_any_precision(command: Command, run: Path) -> None:
    """In float32, the loss of the same weights differs by the rounding of bfloat16, 1 % at most."""
    result = recorded(run)
    assert result["derived.precision"] == "bf16-true"
    metrics = final_metrics(result)
    assert evaluated(command, run)["val/loss"] == metrics["val/loss"]
    assert evaluated(command, run, "transfer.ema=true")["val/loss"] == metrics["val_ema/loss"]
    for precision in ("32-true", "bf16-mixed"):
        assert evaluated(command, run, f"precision={precision}")["val/loss"] == pytest.approx(metrics["val/loss"], rel=0.01)
    model = swin_lab.load_model(run)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(torch.zeros(1, model.in_channels, *model.img_size)).isfinite().all()


def test_a_checkpoint_has_weights_in_bfloat16_and_their_average_in_float32(run: Path) -> None:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    weights = {name: tensor for name, tensor in content["state_dict"].items() if tensor.is_floating_point()}
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert {content["ema"][name].dtype for name in weights} == {torch.float32}


def test_an_evaluation_after_a_training_in_bf16_mixed_repeats_its_metrics(command: Command, tmp_path: Path) -> None:
    """Every evaluation packs the weights for its precision; those of the training before it must not remain."""
    assert command("train", *TINY, "precision=bf16-mixed", "ema=warm").code == 0
    run = only_run(tmp_path)
    metrics = final_metrics(run)
    assert evaluated(command, run)["val/loss"] == metrics["val/loss"]
    assert evaluated(command, run, "transfer.ema=true")["val/loss"] == metrics["val_ema/loss"]
