"""From an image to a tensor: sizes, crops, normalisation, and every augmentation that ships."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torchvision.transforms import v2

from swin_lab.data.transforms import Preprocessing, ResizeToCover
from swin_lab.errors import UserError
from swin_lab.paths import CONF
from swin_lab.run.build import make_augment

SIZES = [(32, 32), (8, 8), (500, 375), (40, 200), (33, 1000)]
"""(width, height) of images."""


def photograph(size=(50, 40)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def preprocessing(**changes):
    values = {"img_size": (32, 32), "channels": 3, "crop_pct": 1.0, "interpolation": "bicubic"}
    return Preprocessing.checked(**values | {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]} | changes)


@pytest.mark.parametrize(("img_size", "shorter"), [(192, 219), (224, 256), (256, 292), (384, 438)])
def test_a_crop_of_seven_eighths_resizes_as_the_published_evaluations(img_size, shorter):
    resized = ResizeToCover(img_size, 0.875)(Image.new("RGB", (700, 500)))
    assert min(resized.size) == shorter == int(256 / 224 * img_size)


@pytest.mark.parametrize(("img_size", "shorter"), [(224, 248), (256, 284)])
def test_a_crop_of_nine_tenths_resizes_as_timm(img_size, shorter):
    assert min(ResizeToCover(img_size, 0.9)(Image.new("RGB", (700, 500))).size) == shorter


@pytest.mark.parametrize("size", [(700, 500), (500, 700), (300, 300), (20, 30)])
def test_resizing_keeps_the_proportions_to_the_pixel(size):
    width, height = ResizeToCover(64)(Image.new("RGB", size)).size
    assert abs(width - height * size[0] / size[1]) <= max(1, size[0] / size[1])  # one pixel of the shorter side


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wanted", [(32, 32), (24, 48), (48, 24), (17, 31)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.9, 0.875])
def test_the_crop_lies_inside_the_resized_image(size, wanted, crop_pct):
    width, height = ResizeToCover(wanted, crop_pct)(photograph(size)).size
    assert height >= int(wanted[0] / crop_pct)
    assert width >= int(wanted[1] / crop_pct)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wanted", [(24, 48), (48, 24)])
def test_the_resized_image_is_no_larger_than_needed(size, wanted):
    width, height = ResizeToCover(wanted)(photograph(size)).size
    assert height == wanted[0] or width == wanted[1]


def test_a_image_of_the_right_size_is_not_resampled():
    image = photograph((32, 32))
    assert (np.asarray(ResizeToCover(32)(image)) == np.asarray(image)).all()


def test_interpolation_is_the_named_one():
    edge = Image.new("RGB", (2, 1), "black")
    edge.putpixel((1, 0), (255, 255, 255))
    values = {name: len(np.unique(np.asarray(ResizeToCover(8, 1.0, name)(edge)))) for name in ("nearest", "bilinear")}
    assert values["nearest"] == 2 < values["bilinear"]


def test_an_evaluated_image_is_normalised_per_channel():
    plain = Image.new("RGB", (32, 32), (255, 102, 0))
    expected = (torch.tensor([1.0, 0.4, 0.0]) - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.25, 0.5])
    out = preprocessing().for_evaluation()(plain)
    torch.testing.assert_close(out, expected[:, None, None].expand(3, 32, 32), atol=1e-6, rtol=0)  # a few ulp


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("img_size", [(32, 32), (24, 48), (48, 24)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_evaluated_image_has_channels_height_and_width_as_asked(size, img_size, channels):
    out = preprocessing(img_size=img_size, channels=channels, crop_pct=0.875).for_evaluation()(photograph(size))
    assert out.shape == (channels, *img_size)
    assert out.dtype == torch.float32


def test_an_evaluation_keeps_the_middle_of_the_image():
    image = Image.new("RGB", (64, 32), "black")
    image.paste("white", (16, 0, 48, 32))
    out = preprocessing(mean=[0.0] * 3, std=[1.0] * 3).for_evaluation()(image)
    assert torch.equal(out, torch.ones(3, 32, 32))


def test_a_crop_below_one_cuts_the_border_off():
    framed = Image.new("RGB", (64, 64), "black")
    framed.paste("white", (8, 8, 56, 56))
    out = preprocessing(img_size=(48, 48), crop_pct=0.75, mean=[0.0] * 3, std=[1.0] * 3).for_evaluation()(framed)
    assert torch.equal(out, torch.ones(3, 48, 48))


def test_a_grey_network_gets_the_luma_of_a_image():
    out = preprocessing(channels=1, mean=[0.0], std=[1.0]).for_evaluation()(Image.new("RGB", (32, 32), (0, 255, 0)))
    assert out[0, 0, 0] == pytest.approx(0.587, abs=0.005)  # ITU-R 601-2, in 8 bits


def test_rgb_statistics_are_averaged_for_a_grey_network():
    grey = preprocessing(channels=1, mean=[0.1, 0.2, 0.6], std=[0.2, 0.2, 0.5])
    assert grey.mean == pytest.approx((0.3,))
    assert grey.std == pytest.approx((0.3,))


def test_preprocessing_survives_the_way_through_a_checkpoint():
    made = preprocessing(img_size=(24, 48), crop_pct=0.9)
    assert Preprocessing.from_dict(json.loads(json.dumps(made.as_dict()))) == made


def test_preprocessing_as_a_dict_is_plain_python():
    values = preprocessing(mean=(0.5, 0.4, 0.3)).as_dict()
    flat = [x for value in values.values() for x in (value if isinstance(value, list) else [value])]
    assert {type(x) for x in flat} == {int, float, str, type(None)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 4}, "in_channels=4"),
        ({"crop_pct": 0}, "crop_pct=0"),
        ({"crop_pct": 1.1}, r"crop_pct=1\.1"),
        ({"crop_pct": "most"}, "crop_pct=most"),
        ({"interpolation": "bicubik"}, "did you mean bicubic"),
        ({"interpolation": None}, "interpolation=None"),
        ({"mean": [0.5, 0.5]}, "data.mean"),
        ({"mean": 0.5}, r"data.mean=0\.5"),
        ({"mean": [123.7, 116.3, 103.5]}, "data.mean"),  # of values from 0 to 255
        ({"std": [0.2, 0.0, 0.2]}, "data.std"),
        ({"std": [0.2]}, "data.std"),
        ({"resize_mode": "squeeze"}, "data.resize_mode=squeeze is unknown; choose one of crop, stretch"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        preprocessing(**wrong)


def test_training_puts_the_augmentations_before_and_after_normalising():
    seen = {}

    class Spy(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            seen[self.name] = x
            return x

    out = preprocessing().for_training([Spy("image")], [Spy("tensor")])(photograph((32, 32)))
    assert isinstance(seen["image"], Image.Image)
    assert seen["tensor"] is out
    assert out.min() < 0


def augmentation(name, img_size):
    file = OmegaConf.load(CONF / "augment" / f"{name}.yaml")
    whole = OmegaConf.create({"model": {"img_size": img_size}, "augment": file})
    return make_augment(OmegaConf.to_container(whole, resolve=True)["augment"], (0.5, 0.5, 0.5))


@pytest.mark.parametrize("img_size", [32, [24, 40]], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(Path(file).stem for file in (CONF / "augment").glob("*.yaml")))
def test_every_augmentation_turns_any_image_into_one_tensor_of_the_network_s_size(name, channels, img_size):
    torch.manual_seed(0)
    parts = augmentation(name, img_size)
    wanted = (32, 32) if img_size == 32 else (24, 40)
    transform = preprocessing(img_size=wanted, channels=channels).for_training(parts.image, parts.tensor)
    for size in SIZES:
        out = transform(photograph(size))
        assert out.shape == (channels, *wanted)
        assert out.isfinite().all()


def test_no_augmentation_is_what_an_evaluation_without_crop_sees():
    parts = augmentation("none", 32)
    plain = preprocessing().for_training(parts.image, parts.tensor)
    for size in SIZES:
        assert torch.equal(plain(photograph(size)), preprocessing().for_evaluation()(photograph(size)))


def test_light_augmentation_never_mirrors():
    steps = [step for part in augmentation("light", 32) for step in part]
    assert not [step for step in steps if isinstance(step, v2.RandomHorizontalFlip | v2.RandomVerticalFlip)]
