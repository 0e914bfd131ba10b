"""The expected calibration error and its diagram."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import binary_calibration_error

from swin_lab.report.calibration import draw_reliability, reliability


@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_that_of_torchmetrics(seed: int) -> None:
    """Within 1e-6: torchmetrics computes in single precision."""
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.1, 1, 500)
    correct = random.random(500) < confidence**2
    expected = binary_calibration_error(torch.tensor(confidence), torch.tensor(correct).int(), n_bins=15, norm="l1")
    assert reliability(confidence, correct).ece == pytest.approx(float(expected), abs=1e-6)


def test_probabilities_that_are_right_as_often_as_they_say_have_no_error() -> None:
    assert reliability(np.full(10, 0.8), np.arange(10) < 8).ece == pytest.approx(0, abs=1e-12)
    assert reliability(np.ones(4), np.zeros(4)).ece == 1


def test_every_prediction_is_in_one_bin() -> None:
    curve = reliability(np.array([0.0, 1 / 15, 0.5, 1.0]), np.array([False, True, True, True]))
    assert curve.images.sum() == 4
    assert (curve.images[0], curve.images[-1]) == (2, 1)


def test_the_diagram_is_a_png(tmp_path) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(0)
    confidence = random.uniform(0.3, 1, 300)
    draw_reliability(reliability(confidence, random.random(300) < confidence), tmp_path / "a.png", title="raw weights")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
