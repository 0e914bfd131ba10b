"""The augmentation of the published recipes equals timm's create_transform: the same seed gives the same tensor.

Only the noise in erased rectangles is other noise of the same distribution, because it is made on the device.
"""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.stats import ks_2samp, kstest
from timm.data import create_transform

from swin_lab.data import TimmAugment
from swin_lab.data.transforms import eval_transform, train_transform
from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 48
SIZES = [(48, 48), (75, 50), (40, 90), (20, 30)]
"""Width and height of images, the last one smaller than the input of the network."""

PUBLISHED = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25, "re_mode": "pixel"}
"""FACTS c3, with timm's names."""

NATIVE_NAMES = {"re_prob": "erase", "re_mode": "erase_mode", "re_count": "erase_count"}


def random_image(size):
    """Returns gradients and noise, so that every geometric and colour operation changes the image."""
    width, height = size
    noise = np.random.default_rng(width).integers(0, 64, (height, width, 3))
    slope = np.linspace(0, 191, height * width * 3).reshape(height, width, 3)
    return Image.fromarray((noise + slope).astype(np.uint8))


def preprocessing(**changes):
    values = {"img_size": (SIDE, SIDE), "channels": 3, "crop_pct": 0.9, "interpolation": "bicubic", "mean": MEAN, "std": STD}
    return Preprocessing(**values | changes)


def native(img_size=SIDE, **timm_names):
    augment = TimmAugment(
        img_size=img_size, mean=MEAN, **{NATIVE_NAMES.get(name, name): value for name, value in timm_names.items()}
    )
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    return train_transform(preprocessing(img_size=size), augment.image_transforms, augment.tensor_transforms)


def timm_transforms(img_size=SIDE, **timm_names):
    settings = {"color_jitter": 0.4, "interpolation": "bicubic", "re_count": 1} | timm_names
    return create_transform(img_size, is_training=True, mean=MEAN, std=STD, **settings)


def applied(transform, image, seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return transform(image)


def assert_equal_but_for_noise(settings, size_of, seeds, defaults=False):
    """Asserts that every image equals that of timm's pipeline, and that the same pixels are replaced by noise."""
    black = settings | {"re_mode": "const"}
    ours, ours_black = native(**({} if defaults else settings)), native(**black)
    theirs, theirs_black = timm_transforms(**settings), timm_transforms(**black)
    for seed in range(seeds):
        image = random_image(size_of(seed))
        one, one_black, other, other_black = (
            applied(transform, image, seed) for transform in (ours, ours_black, theirs, theirs_black)
        )
        assert torch.equal(one_black, other_black), seed
        assert torch.equal(one != one_black, other != other_black), seed


@pytest.fixture
def old_posterize(monkeypatch):
    """Replaces posterize of Pillow 13, which refuses the 0 bits of magnitude 10, by that of older versions (a black image)."""
    present = ImageOps.posterize
    monkeypatch.setattr(
        ImageOps, "posterize", lambda image, bits: present(image, bits) if bits else Image.new("RGB", image.size)
    )


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(PUBLISHED, id="published"),
        pytest.param(PUBLISHED | {"interpolation": "random"}, id="random-interpolation"),
        pytest.param(PUBLISHED | {"interpolation": "bilinear", "hflip": 0.0, "vflip": 0.5}, id="turned-upside-down"),
        pytest.param(PUBLISHED | {"re_prob": 1.0, "re_mode": "rand", "re_count": 3}, id="three-rectangles-of-one-colour"),
        pytest.param(PUBLISHED | {"re_prob": 1.0, "re_mode": "const"}, id="black-rectangle"),
        pytest.param(PUBLISHED | {"re_prob": 0.0}, id="nothing-erased"),
        pytest.param(PUBLISHED | {"scale": (0.67, 1.0), "ratio": (0.5, 2.0)}, id="other-crops"),
        pytest.param(PUBLISHED | {"auto_augment": None}, id="jitter"),
        pytest.param(PUBLISHED | {"auto_augment": None, "color_jitter": 0.9}, id="strong-jitter"),
        pytest.param(PUBLISHED | {"auto_augment": "augmix-m3-w3"}, id="augmix"),
        pytest.param(PUBLISHED | {"auto_augment": "original-mstd0.5"}, id="auto-augment"),
        pytest.param(PUBLISHED | {"img_size": (32, 64)}, id="not-square"),
    ],
)
def test_twenty_samples_equal_those_of_timm(settings, old_posterize):
    assert_equal_but_for_noise(settings, lambda seed: SIZES[seed % len(SIZES)], 20)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(PUBLISHED, id="published"),
        pytest.param(PUBLISHED | {"auto_augment": None}, id="jitter"),
        pytest.param(PUBLISHED | {"auto_augment": "augmix-m3-w3"}, id="augmix"),
    ],
)
def test_the_pixels_that_a_worker_hands_over_are_timm_s_before_normalisation(settings, old_posterize):
    """timm's own transform ends with uint8 if its prefetcher normalises."""
    one, other = native(**settings), timm_transforms(**settings, use_prefetcher=True)
    for seed in range(20):
        image = random_image(SIZES[seed % len(SIZES)])
        pixels = applied(one.worker, image, seed)
        assert pixels.dtype == torch.uint8
        assert np.array_equal(pixels.numpy(), applied(other, image, seed)), seed


@pytest.mark.parametrize("mode", ["pixel", "rand"])
def test_erased_rectangles_are_normal_noise_as_timm_s(mode):
    """A Kolmogorov-Smirnov test of all values of 200 rectangles; a colour counts once."""
    settings = PUBLISHED | {"auto_augment": None, "re_prob": 1.0, "re_mode": mode}
    drawn, image_75_50, without = [], random_image((75, 50)), native(**settings | {"re_mode": "const"})
    for transform in (native(**settings), timm_transforms(**settings)):
        values = []
        for seed in range(200):
            black, image = applied(without, image_75_50, seed), applied(transform, image_75_50, seed)
            noise = [channel[changed].unique() for channel, changed in zip(image, image != black, strict=True)]
            assert all(len(values) == 1 for values in noise) == (mode == "rand")
            values += noise
        drawn.append(torch.cat(values).numpy())
    assert kstest(drawn[0], "norm").pvalue > 0.01
    assert ks_2samp(*drawn).pvalue > 0.01


def test_the_defaults_are_the_published_recipe():
    """The published values are those of FACTS c3."""
    assert_equal_but_for_noise(PUBLISHED, lambda seed: (75, 50), 20, defaults=True)


def test_the_configuration_is_the_published_recipe():
    from swin_lab.run.augmentation import build_augmentation
    from swin_lab.run.compose import composed

    augment = build_augmentation(composed(["augment=imagenet"])["augment"], preprocessing())
    one = train_transform(preprocessing(), augment.image_transforms, augment.tensor_transforms)
    other = native()
    assert all(
        torch.equal(applied(one, random_image((75, 50)), seed), applied(other, random_image((75, 50)), seed))
        for seed in range(20)
    )


@pytest.mark.parametrize(
    "other",
    [
        {"auto_augment": "rand-m5-mstd0.5-inc1"},
        {"re_prob": 1.0},
        {"interpolation": "nearest"},
        {"hflip": 1.0},
        {"scale": (0.5, 1.0)},
        {"ratio": (1.0, 1.0)},
        {"auto_augment": None},
    ],
    ids=str,
)
def test_every_setting_has_an_effect_in_twenty_samples(other):
    """Otherwise the comparison with timm could not detect it."""
    one, changed, image = native(**PUBLISHED), native(**PUBLISHED | other), random_image((75, 50))
    assert not all(torch.equal(applied(one, image, seed), applied(changed, image, seed)) for seed in range(20))


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "augmix-m10-w3"])
def test_the_strongest_magnitude_of_a_policy_gives_an_image(policy):
    """timm's own transform fails there with Pillow 13."""
    transform = native(**PUBLISHED | {"auto_augment": policy, "re_prob": 0.0})
    for seed in range(60):
        assert applied(transform, random_image((75, 50)), seed).shape == (3, SIDE, SIDE)


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "augmix-m10-w3"])
def test_the_strongest_magnitude_is_timm_s(policy, old_posterize):
    assert_equal_but_for_noise(PUBLISHED | {"auto_augment": policy}, lambda seed: (75, 50), 60)


def test_colour_jitter_is_not_used_together_with_a_policy():
    one, other, image = native(color_jitter=0.9), native(color_jitter=None), random_image((75, 50))
    assert all(torch.equal(applied(one, image, seed), applied(other, image, seed)) for seed in range(20))


def test_without_a_policy_colour_jitter_works():
    one, other, image = native(auto_augment=None), native(auto_augment=None, color_jitter=None), random_image((75, 50))
    assert not any(torch.equal(applied(one, image, seed), applied(other, image, seed)) for seed in range(5))


@pytest.mark.parametrize("strength", [None, 0, 0.0])
def test_no_policy_and_no_jitter_is_a_crop_alone(strength):
    transform = native(auto_augment=None, color_jitter=strength, re_prob=0, hflip=0, scale=(1, 1), ratio=(1, 1))
    image = random_image((SIDE, SIDE))
    expected = eval_transform(preprocessing(crop_pct=1.0))(image)
    assert torch.equal(applied(transform, image, 0), expected)


def test_a_greyscale_network_gets_one_channel():
    augment = TimmAugment(img_size=SIDE, mean=(0.5,))
    greyscale = preprocessing(channels=1, mean=(0.5,), std=(0.25,))
    transform = train_transform(greyscale, augment.image_transforms, augment.tensor_transforms)
    assert {applied(transform, random_image((75, 50)), seed).shape for seed in range(20)} == {(1, SIDE, SIDE)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hflip": 1.5}, r"augment\.hflip=1\.5 must be a number of at least 0 and at most 1"),
        ({"hflip": None}, r"augment\.hflip=null must be a number"),
        ({"vflip": -0.1}, r"augment\.vflip=-0\.1"),
        ({"erase": float("nan")}, r"augment\.erase=nan"),
        ({"erase": True}, r"augment\.erase=true must be a number"),
        ({"scale": [0.5]}, r"augment\.scale=\[0\.5\] must be a list of 2 values, each a positive number"),
        ({"scale": [0, 1]}, r"augment\.scale=\[0, 1\] must be"),
        ({"scale": [1.0, 0.08]}, r"augment\.scale=\[1\.0, 0\.08\] must be a minimum and a maximum"),
        ({"ratio": ["a", 1]}, r"augment\.ratio=\[a, 1\] must be"),
        ({"color_jitter": -0.4}, r"augment\.color_jitter=-0\.4 must be a non-negative number up to 1,000,000 or null"),
        ({"color_jitter": "strong"}, r"augment\.color_jitter=strong must be"),
        ({"img_size": 0}, r"augment\.img_size=0 must be a positive integer"),
        ({"auto_augment": 9}, r"augment\.auto_augment=9 must be a string that is not empty or null"),
        ({"color_jitter": float("nan")}, r"augment\.color_jitter=nan"),
        ({"interpolation": "lanczos"}, r"augment\.interpolation=lanczos is unknown"),  # Pillow cannot rotate with it
        ({"interpolation": "bicubik"}, r"augment\.interpolation=bicubik is unknown; did you mean bicubic"),
        ({"interpolation": None}, r"augment\.interpolation=null must be one of"),
        ({"erase_mode": "pixels"}, r"augment\.erase_mode=pixels is unknown; did you mean pixel"),
        ({"erase_count": 0}, r"augment\.erase_count=0"),
        ({"erase_count": 1.5}, r"augment\.erase_count=1\.5"),
    ],
    ids=str,
)
def test_an_invalid_value_is_rejected_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        TimmAugment(**{"img_size": SIDE, "mean": MEAN} | wrong)


@pytest.mark.parametrize("policy", ["random-m9", "rand-m9-q1", "augmix-x3", "nonsense"])
def test_a_policy_that_timm_does_not_know_is_rejected_by_name(policy):
    augment = TimmAugment(img_size=SIDE, mean=MEAN, auto_augment=policy)
    with pytest.raises(UserError, match=rf"augment\.auto_augment={policy} is not a policy of timm"):
        augment.image_transforms  # noqa: B018
