"""The augmentation of the published recipes is timm's create_transform: the same draws give the same tensor, bit for bit."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import create_transform

from swin_lab.data import Preprocessing, TimmAugment
from swin_lab.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 48
SIZES = [(48, 48), (75, 50), (40, 90), (20, 30)]
"""Width and height of images, the last one smaller than what the network sees."""

PUBLISHED = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25, "re_mode": "pixel"}
"""FACTS c3, in timm's words."""

OUR_WORDS = {"re_prob": "erase", "re_mode": "erase_mode", "re_count": "erase_count"}


def random_image(size):
    """Gradients and noise, so that every geometric step and every colour shows."""
    width, height = size
    noise = np.random.default_rng(width).integers(0, 64, (height, width, 3))
    slope = np.linspace(0, 191, height * width * 3).reshape(height, width, 3)
    return Image.fromarray((noise + slope).astype(np.uint8))


def ours(img_size=SIDE, **timm_words):
    augment = TimmAugment(
        img_size=img_size, mean=MEAN, **{OUR_WORDS.get(name, name): value for name, value in timm_words.items()}
    )
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    preprocessing = Preprocessing.checked((height, width), 3, 0.9, "bicubic", MEAN, STD)
    return preprocessing.for_training(augment.image, augment.tensor)


def theirs(img_size=SIDE, **timm_words):
    settings = {"color_jitter": 0.4, "interpolation": "bicubic", "re_count": 1} | timm_words
    return create_transform(img_size, is_training=True, mean=MEAN, std=STD, **settings)


def drawn(transform, image, seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return transform(image)


@pytest.fixture
def posterize_of_old(monkeypatch):
    """Of a magnitude of 10 timm asks for 0 bits, once in a thousand images: a black one of old, an error of Pillow 13."""
    present = ImageOps.posterize
    monkeypatch.setattr(
        ImageOps, "posterize", lambda image, bits: present(image, bits) if bits else Image.new("RGB", image.size)
    )


@pytest.mark.parametrize(
    "words",
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
def test_twenty_draws_give_the_tensors_of_timm(words, posterize_of_old):
    one, other = ours(**words), theirs(**words)
    for seed in range(20):
        image = random_image(SIZES[seed % len(SIZES)])
        assert torch.equal(drawn(one, image, seed), drawn(other, image, seed)), seed


def test_the_defaults_are_the_published_recipe():
    """FACTS c3."""
    one, other = ours(), theirs(**PUBLISHED)
    assert all(
        torch.equal(drawn(one, random_image((75, 50)), seed), drawn(other, random_image((75, 50)), seed)) for seed in range(20)
    )


def test_the_configuration_is_the_published_recipe():
    from swin_lab.run.build import make_augment
    from swin_lab.run.compose import composed

    node = composed(["augment=imagenet", f"model.img_size={SIDE}"])["augment"]
    augment = make_augment(node, MEAN)
    one = Preprocessing.checked((SIDE, SIDE), 3, 0.9, "bicubic", MEAN, STD).for_training(augment.image, augment.tensor)
    other = theirs(**PUBLISHED)
    assert all(
        torch.equal(drawn(one, random_image((75, 50)), seed), drawn(other, random_image((75, 50)), seed)) for seed in range(20)
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
def test_every_setting_shows_in_twenty_draws(other):
    """Or the comparison with timm could not see it."""
    one, changed, image = ours(**PUBLISHED), ours(**PUBLISHED | other), random_image((75, 50))
    assert not all(torch.equal(drawn(one, image, seed), drawn(changed, image, seed)) for seed in range(20))


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "augmix-m10-w3"])
def test_the_strongest_magnitude_of_a_policy_gives_a_image(policy):
    """Where timm's own transform fails under Pillow 13."""
    transform = ours(**PUBLISHED | {"auto_augment": policy, "re_prob": 0.0})
    for seed in range(60):
        assert drawn(transform, random_image((75, 50)), seed).shape == (3, SIDE, SIDE)


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "augmix-m10-w3"])
def test_the_strongest_magnitude_is_timm_s(policy, posterize_of_old):
    words = PUBLISHED | {"auto_augment": policy}
    one, other, image = ours(**words), theirs(**words), random_image((75, 50))
    assert all(torch.equal(drawn(one, image, seed), drawn(other, image, seed)) for seed in range(60))


def test_where_there_is_a_policy_colour_jitter_is_unused():
    one, other, image = ours(color_jitter=0.9), ours(color_jitter=None), random_image((75, 50))
    assert all(torch.equal(drawn(one, image, seed), drawn(other, image, seed)) for seed in range(20))


def test_without_a_policy_colour_jitter_works():
    one, other, image = ours(auto_augment=None), ours(auto_augment=None, color_jitter=None), random_image((75, 50))
    assert not any(torch.equal(drawn(one, image, seed), drawn(other, image, seed)) for seed in range(5))


@pytest.mark.parametrize("strength", [None, 0, 0.0])
def test_no_policy_and_no_jitter_is_a_crop_alone(strength):
    transform = ours(auto_augment=None, color_jitter=strength, re_prob=0, hflip=0, scale=(1, 1), ratio=(1, 1))
    image = random_image((SIDE, SIDE))
    expected = Preprocessing.checked((SIDE, SIDE), 3, 1.0, "bicubic", MEAN, STD).for_evaluation()(image)
    assert torch.equal(drawn(transform, image, 0), expected)


def test_a_grey_network_is_given_one_channel():
    augment = TimmAugment(img_size=SIDE, mean=(0.5,))
    preprocessing = Preprocessing.checked((SIDE, SIDE), 1, 0.9, "bicubic", (0.5,), (0.25,))
    transform = preprocessing.for_training(augment.image, augment.tensor)
    assert {drawn(transform, random_image((75, 50)), seed).shape for seed in range(20)} == {(1, SIDE, SIDE)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hflip": 1.5}, r"augment\.hflip=1\.5"),
        ({"hflip": None}, r"augment\.hflip=None"),
        ({"vflip": -0.1}, r"augment\.vflip=-0\.1"),
        ({"erase": float("nan")}, r"augment\.erase=nan"),
        ({"erase": True}, r"augment\.erase=True"),
        ({"scale": [0.5]}, r"augment\.scale=\[0\.5\]"),
        ({"scale": [0, 1]}, r"augment\.scale=\[0, 1\]"),
        ({"scale": [1.0, 0.08]}, r"augment\.scale=\[1\.0, 0\.08\]"),
        ({"ratio": ["a", 1]}, r"augment\.ratio=\['a', 1\]"),
        ({"color_jitter": -0.4}, r"augment\.color_jitter=-0\.4"),
        ({"color_jitter": "strong"}, r"augment\.color_jitter=strong"),
        ({"color_jitter": float("nan")}, r"augment\.color_jitter=nan"),
        ({"interpolation": "lanczos"}, r"augment\.interpolation=lanczos is unknown"),  # Pillow cannot rotate with it
        ({"interpolation": "bicubik"}, r"augment\.interpolation=bicubik is unknown; did you mean bicubic"),
        ({"interpolation": None}, r"augment\.interpolation=None"),
        ({"erase_mode": "pixels"}, r"augment\.erase_mode=pixels is unknown; did you mean pixel"),
        ({"erase_count": 0}, r"augment\.erase_count=0"),
        ({"erase_count": 1.5}, r"augment\.erase_count=1\.5"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        TimmAugment(**{"img_size": SIDE, "mean": MEAN} | wrong)


@pytest.mark.parametrize("policy", ["random-m9", "rand-m9-q1", "augmix-x3", "nonsense", 9])
def test_a_policy_that_timm_does_not_know_is_refused_by_name(policy):
    augment = TimmAugment(img_size=SIDE, mean=MEAN, auto_augment=policy)
    with pytest.raises(UserError, match=rf"augment\.auto_augment={policy} is no policy"):
        augment.image  # noqa: B018
