"""The programs in examples/ train what their docstrings describe."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torchvision.ops import box_iou

sys.path.insert(0, str(ROOT / "examples"))
import detection
import segmentation

PROGRAMS = sorted((ROOT / "examples").glob("*.py"))
TRAINED = [pytest.param("detector", marks=pytest.mark.slow), "segmenter"]


@pytest.fixture(scope="module")
def detector():
    return detection.overfit(150)


@pytest.fixture(scope="module")
def segmenter():
    return segmentation.overfit(60)


@pytest.mark.parametrize("trained", TRAINED)
def test_the_loss_falls_to_a_third(trained, request):
    losses = request.getfixturevalue(trained)[1]
    assert sum(losses[-5:]) < sum(losses[:5]) / 3


@pytest.mark.slow
def test_the_detector_finds_its_shapes(detector):
    model, (images, targets) = detector[0], detection.shapes()
    with torch.no_grad():
        found = model(images)
    hits = [
        len(of_image["boxes"]) > 0 and box_iou(of_image["boxes"][:1], target["boxes"]).item() > 0.5
        for of_image, target in zip(found, targets, strict=True)
    ]
    assert sum(hits) >= 6


def test_boxes_enclose_masks_and_both_are_where_the_image_is_bright():
    for image, target in zip(*detection.shapes(), strict=True):
        mask = target["masks"][0].bool()
        left, top, right, bottom = target["boxes"][0].int().tolist()
        assert mask.any(dim=0).nonzero().flatten()[[0, -1]].tolist() == [left, right]
        assert mask.any(dim=1).nonzero().flatten()[[0, -1]].tolist() == [top, bottom]
        assert image[:, mask].mean() > image[:, ~mask].mean()


def test_the_segmenter_covers_its_discs(segmenter):
    images, classes = segmentation.shapes()
    with torch.no_grad():
        found = segmenter[0](images).argmax(dim=1)
    assert (found & classes).sum() / (found | classes).sum() > 0.75


@pytest.mark.parametrize("size", [(64, 64), (100, 76), (50, 33)])
def test_the_segmenter_accepts_any_size(segmenter, size):
    assert segmenter[0](torch.rand(1, 3, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize("trained", TRAINED)
def test_every_parameter_of_the_backbone_has_a_gradient(trained, request):
    model = request.getfixturevalue(trained)[0]
    backbone = model.backbone.backbone if trained == "detector" else model.backbone
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.slow
@pytest.mark.parametrize("file", PROGRAMS, ids=lambda file: file.name)
def test_a_program_is_short_and_runs_as_documented(file):
    assert len(file.read_text().splitlines()) <= 60
    done = subprocess.run([sys.executable, str(file), "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "step   2 of 2  loss" in done.stdout
