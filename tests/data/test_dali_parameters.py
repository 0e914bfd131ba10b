"""The augmentation that is drawn for DALI: timm's random numbers, operations and levels, and refusals."""

from functools import partial

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2

from swin_lab.data import TimmAugment
from swin_lab.data.dali.parameters import AMOUNTS, Augmentation, Kind
from swin_lab.data.transforms import random_state
from swin_lab.errors import UserError


def augmentation(policy="rand-m9-mstd0.5-inc1", **changes):
    return TimmAugment(**{"img_size": 64, "mean": (0.485, 0.456, 0.406), "auto_augment": policy} | changes)


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m7-n3", "original", "v0r-mstd0.5"])
def test_the_operations_and_levels_are_those_that_timm_applies(policy):
    augment = augmentation(policy)
    drawn, applied = Augmentation(augment.image_transforms), []
    transform = augment.image_transforms[-1]
    for op in [*getattr(transform, "ops", []), *(op for line in getattr(transform, "policy", []) for op in line)]:
        op.aug_fn = partial(note, applied, op.name)
    for seed in range(200):
        with random_state(seed):
            parameters = drawn.draw(200, 300)
        applied.clear()
        with random_state(seed):
            image = Image.new("RGB", (300, 200))
            for step in augment.image_transforms:
                image = step(image)
        assert [(op.kind, op.amount) for op in parameters.operations] == applied


def note(applied, name, image, *level, fillcolor, resample):
    """Takes the place of one of timm's operations."""
    stem = name.removesuffix("Increasing").removesuffix("Original")
    kind = Kind.SOLARIZE if stem == "Invert" else AMOUNTS.get(stem, Kind.AFFINE)
    applied.append((kind, level[0] if level else 0))
    return image


def test_10000_draws_have_the_probabilities_and_magnitudes_of_the_policy():
    drawn = Augmentation(augmentation().image_transforms)
    operations = []
    for seed in range(10_000):
        with random_state(seed):
            operations += drawn.draw(200, 300).operations
    share = {kind: sum(op.kind == kind for op in operations) / 10_000 for kind in Kind}
    amounts = {kind: np.array([op.amount for op in operations if op.kind == kind]) for kind in Kind}
    # Two operations of 15, each with probability one half; inversion is solarisation from 0. Three standard errors are 0.008.
    expected = {Kind.NONE: 0, Kind.AFFINE: 5 / 15, Kind.SOLARIZE: 2 / 15}
    for kind in Kind:
        assert share[kind] == pytest.approx(expected.get(kind, 1 / 15), abs=0.015)
    for kind in (Kind.BRIGHTNESS, Kind.CONTRAST, Kind.COLOR, Kind.SHARPNESS):  # 1 +- 0.09 m, where m is 9 +- 0.5, and >= 0.1
        assert np.abs(amounts[kind] - 1).mean() == pytest.approx(0.81, abs=0.01)
        assert np.abs(amounts[kind] - 1).std() == pytest.approx(0.045, abs=0.01)
        assert (amounts[kind] > 1).mean() == pytest.approx(0.5, abs=0.07)
    assert (amounts[Kind.POSTERIZE] == 1).mean() > 0.95  # bits; 0 for a magnitude of 10, 2 below 7.5
    assert amounts[Kind.SOLARIZE_ADD].mean() == pytest.approx(98.3, abs=1)


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        (augmentation("augmix-m3-w3").image_transforms, "AugMixAugment"),
        ([augmentation().image_transforms[0], v2.TrivialAugmentWide()], "TrivialAugmentWide"),
        (augmentation("3a").image_transforms, "timm's Desaturate"),
        ([v2.CenterCrop(64)], "CenterCrop"),
        (augmentation().image_transforms[1:], "RandomHorizontalFlip, RandAugment"),
        (augmentation().image_transforms[::-1], "RandAugment, RandomHorizontalFlip, RandomResizedCropAndInterpolation"),
        ([*augmentation(None, color_jitter=None).image_transforms, v1.ColorJitter(hue=0.1)], "hue"),
    ],
    ids=["augmix", "trivial_augment", "3a", "centre_crop", "no_crop", "order", "hue"],
)
def test_augmentation_without_a_version_in_dali_is_refused_by_name(steps, named):
    with pytest.raises(UserError, match=named):
        Augmentation(steps)
