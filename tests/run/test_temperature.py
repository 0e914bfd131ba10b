"""Temperature scaling: the fit, the checkpoint that eval.py calibrate=FILE.ckpt writes, and what reads it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Command, final_metrics, only_run
from PIL import Image

import swin_lab
from swin_lab.errors import UserError
from swin_lab.run.temperature import judge

OWN = {"own": 1.0, "fit": True, "same_images": True}


def logits_and_labels(scale: float, images: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose probabilities are right at the given temperature, and labels that are drawn from these."""
    generator = torch.Generator().manual_seed(0)
    honest = torch.randn(images, 5, generator=generator) * 2
    labels = honest.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    return (honest * scale).numpy(), labels.numpy()


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_by_which_logits_are_off_is_found(scale: float) -> None:
    """Within 3 %, which is three standard errors of the fit on 20,000 images."""
    found = judge(*logits_and_labels(scale), **OWN)
    assert found.temperature == pytest.approx(scale, rel=0.03)
    assert found.with_it.ece < 0.01
    assert found.loss_with <= found.loss_without


def test_it_is_the_minimum_of_the_loss_by_a_dense_grid() -> None:
    """The grid's steps are 0.1 %."""
    logits, labels = logits_and_labels(1.7, images=300)
    grid = np.exp(np.arange(-1, 1.5, 0.001))
    losses = [
        torch.nn.functional.cross_entropy(torch.from_numpy(logits).double() / t, torch.from_numpy(labels)).item() for t in grid
    ]
    assert judge(logits, labels, **OWN).temperature == pytest.approx(grid[int(np.argmin(losses))], rel=1e-3)


def test_logits_that_were_divided_before_are_judged_without_it_too() -> None:
    logits, labels = logits_and_labels(2.0)
    fitted = judge(logits, labels, **OWN)
    again = judge(logits / fitted.temperature, labels, own=fitted.temperature, fit=False, same_images=False)
    assert again.temperature == fitted.temperature
    assert (again.loss_without, again.loss_with) == pytest.approx((fitted.loss_without, fitted.loss_with), rel=1e-6)


def test_images_that_are_all_right_determine_no_temperature() -> None:
    logits, _ = logits_and_labels(1.0, images=50)
    with pytest.raises(UserError, match="no temperature"):
        judge(logits, logits.argmax(axis=1), **OWN)


def test_the_calibrated_checkpoint_has_the_fitted_loss_and_the_same_accuracy_everywhere(
    command: Command, cli: Command, trained: Path, tmp_path: Path
) -> None:
    """Losses within 1e-5; the images of the synthetic data are those of the run."""
    before = (trained / "checkpoints" / "best.ckpt").read_bytes()
    outcome = command("eval", f"checkpoint={trained}", "calibrate=calibrated.ckpt", "out=first")
    assert outcome.code == 0, outcome.err
    assert "fitted on the same images" in outcome.out
    assert (trained / "checkpoints" / "best.ckpt").read_bytes() == before
    first = json.loads((tmp_path / "first" / "results.json").read_text())
    assert first["calibration.with_temperature.loss"] < first["calibration.without_temperature.loss"]

    again = command("eval", "checkpoint=calibrated.ckpt", "out=second")
    second = json.loads((tmp_path / "second" / "results.json").read_text())
    assert second["metrics.final.acc1"] == first["metrics.final.acc1"]
    assert second["metrics.final.loss"] == pytest.approx(first["calibration.with_temperature.loss"], abs=1e-5)
    assert second["calibration.without_temperature.loss"] == pytest.approx(first["metrics.final.loss"], abs=1e-5)
    assert second["calibration.temperature"] == first["calibration.temperature"]
    assert "fitted on the same images" in again.out
    other = command("eval", "checkpoint=calibrated.ckpt", "data=synthetic", "data.num_classes=6", "data.val_images=20")
    assert "with the temperature" in other.out
    assert "same images" not in other.out

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    raw, calibrated = (swin_lab.Predictor(path)(image, top=6) for path in (trained, tmp_path / "calibrated.ckpt"))
    scaled = (torch.tensor(raw.probabilities).log() / first["calibration.temperature"]).softmax(dim=0)
    assert calibrated.names == raw.names
    assert calibrated.probabilities == pytest.approx(scaled.tolist(), abs=1e-5)

    assert cli("convert", "calibrated.ckpt", "timm.pth", "--layout", "timm").code == 0
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        converted = swin_lab.load_model("timm.pth", img_size=32, window_size=4)(pixels)
        assert torch.allclose(converted, swin_lab.load_model("calibrated.ckpt")(pixels), atol=1e-6)
    assert "divided by the temperature" in cli("inspect", "calibrated.ckpt").out


def test_a_network_of_another_library_is_calibrated_too(command: Command, tmp_path: Path) -> None:
    overrides = [entry for entry in TINY if not entry.startswith("model")]
    model = ["model=timm", "name=test_vit", "model.img_size=32"]
    assert command("train", *overrides[:-1], *model, "trainer.max_epochs=1").code == 0
    outcome = command("eval", f"checkpoint={only_run(tmp_path)}", "calibrate=calibrated.ckpt", "out=first")
    assert outcome.code == 0, outcome.err
    assert command("eval", "checkpoint=calibrated.ckpt", "out=second").code == 0
    fitted = json.loads((tmp_path / "first" / "results.json").read_text())["calibration.with_temperature.loss"]
    assert final_metrics(tmp_path / "second")["val/loss"] == pytest.approx(fitted, abs=1e-5)


@pytest.mark.parametrize(
    ("value", "part"),
    [("runs", "ending .ckpt"), ("there.ckpt", "exists already"), ("nowhere/a.ckpt", "is not a folder; create it first")],
)
def test_a_file_that_exists_or_cannot_be_written_is_refused_before_the_evaluation(
    command: Command, trained: Path, tmp_path: Path, value: str, part: str
) -> None:
    (tmp_path / "there.ckpt").write_text("mine")
    outcome = command("eval", f"checkpoint={trained}", f"calibrate={value}")
    assert outcome.code == 2
    assert part in outcome.err
    assert not list(trained.glob("eval_*"))
    assert (tmp_path / "there.ckpt").read_text() == "mine"


def test_weights_that_the_precision_rounds_are_not_calibrated(command: Command, trained: Path) -> None:
    outcome = command("eval", f"checkpoint={trained}", "calibrate=a.ckpt", "precision=bf16-true")
    assert outcome.code == 2
    assert "precision=bf16-true rounds all weights" in outcome.err
