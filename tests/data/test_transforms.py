"""From an image to a tensor: sizes, crops, normalisation, and every augmentation in conf/augment."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torchvision.transforms import v2

import swin_lab
from swin_lab.data.decoding import decoder
from swin_lab.data.transforms import ResizeToCover, eval_transform, train_transform
from swin_lab.errors import UserError
from swin_lab.paths import CONF
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.augmentation import build_augmentation

SIZES = [(32, 32), (8, 8), (500, 375), (40, 200), (33, 1000)]
"""(width, height) of images."""


def photograph(size=(50, 40)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def preprocessing(**changes):
    values = {"img_size": (32, 32), "channels": 3, "crop_pct": 1.0, "interpolation": "bicubic"}
    values |= {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.5)}
    if changes.get("channels") == 1:
        values |= {"mean": (0.4,), "std": (0.3,)}
    return Preprocessing(**values | changes)


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (100_000, 60)])
def test_of_a_very_long_image_only_the_centre_is_resized(size):
    """Resized as a whole, a line of 20,000 pixels would take 5 GB; the crop is the same but for roundings of the scale."""
    width, height = size
    values = np.arange(width * height, dtype=np.uint32).reshape(height, width) * 64 // max(size)
    image = Image.fromarray(values.astype(np.uint8) % 64 * 4).convert("RGB")
    resized = ResizeToCover(224, 0.875)(image)
    assert min(resized.size) == 256
    assert max(resized.size) <= 16_384
    centre = np.asarray(v2.CenterCrop(224)(resized)).mean()
    assert abs(centre - np.asarray(image)[height // 2, width // 2, 0]) < 8


@pytest.mark.parametrize(("img_size", "shorter"), [(192, 219), (224, 256), (256, 292), (384, 438)])
def test_a_crop_of_seven_eighths_resizes_as_the_published_evaluations(img_size, shorter):
    resized = ResizeToCover(img_size, 0.875)(Image.new("RGB", (700, 500)))
    assert min(resized.size) == shorter == int(256 / 224 * img_size)


@pytest.mark.parametrize(("img_size", "shorter"), [(224, 248), (256, 284)])
def test_a_crop_of_nine_tenths_resizes_as_timm(img_size, shorter):
    assert min(ResizeToCover(img_size, 0.9)(Image.new("RGB", (700, 500))).size) == shorter


@pytest.mark.parametrize("size", [(700, 500), (500, 700), (300, 300), (20, 30)])
def test_resizing_keeps_the_proportions_to_one_pixel(size):
    width, height = ResizeToCover(64)(Image.new("RGB", size)).size
    assert abs(width - height * size[0] / size[1]) <= max(1, size[0] / size[1])  # one pixel of the shorter side


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(32, 32), (24, 48), (48, 24), (17, 31)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.9, 0.875])
def test_the_crop_is_inside_the_resized_image(size, target, crop_pct):
    width, height = ResizeToCover(target, crop_pct)(photograph(size)).size
    assert height >= int(target[0] / crop_pct)
    assert width >= int(target[1] / crop_pct)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(24, 48), (48, 24)])
def test_the_resized_image_is_no_larger_than_needed(size, target):
    width, height = ResizeToCover(target)(photograph(size)).size
    assert height == target[0] or width == target[1]


def test_an_image_of_the_right_size_is_not_resampled():
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
    out = eval_transform(preprocessing())(plain)
    torch.testing.assert_close(out, expected[:, None, None].expand(3, 32, 32), atol=1e-6, rtol=0)  # a few ulp


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("img_size", [(32, 32), (24, 48), (48, 24)])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_evaluated_image_has_the_channels_and_the_size_of_the_preprocessing(size, img_size, channels):
    out = eval_transform(preprocessing(img_size=img_size, channels=channels, crop_pct=0.875))(photograph(size))
    assert out.shape == (channels, *img_size)
    assert out.dtype == torch.float32


def test_an_evaluation_keeps_the_middle_of_the_image():
    image = Image.new("RGB", (64, 32), "black")
    image.paste("white", (16, 0, 48, 32))
    out = eval_transform(preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3))(image)
    assert torch.equal(out, torch.ones(3, 32, 32))


def test_a_crop_below_one_removes_the_border():
    framed = Image.new("RGB", (64, 64), "black")
    framed.paste("white", (8, 8, 56, 56))
    out = eval_transform(preprocessing(img_size=(48, 48), crop_pct=0.75, mean=(0.0,) * 3, std=(1.0,) * 3))(framed)
    assert torch.equal(out, torch.ones(3, 48, 48))


def test_a_greyscale_network_gets_the_luma_of_an_image():
    out = eval_transform(preprocessing(channels=1, mean=(0.0,), std=(1.0,)))(Image.new("RGB", (32, 32), (0, 255, 0)))
    assert out[0, 0, 0] == pytest.approx(0.587, abs=0.005)  # ITU-R 601-2, in 8 bits


def test_training_applies_the_augmentations_before_and_after_normalisation():
    seen = {}

    class Spy(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            seen[self.name] = x
            return x

    out = train_transform(preprocessing(), [Spy("image")], [Spy("tensor")])(photograph((32, 32)))
    assert isinstance(seen["image"], Image.Image)
    assert seen["tensor"] is out
    assert out.min() < 0


def augmentation(name, img_size):
    node = OmegaConf.to_container(OmegaConf.load(CONF / "augment" / f"{name}.yaml"))
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    return build_augmentation(node, preprocessing(img_size=size))


@pytest.mark.parametrize("img_size", [32, [24, 40]], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(Path(file).stem for file in (CONF / "augment").glob("*.yaml")))
def test_every_augmentation_gives_a_tensor_of_the_network_s_input_size_for_any_image(name, channels, img_size):
    torch.manual_seed(0)
    augment = augmentation(name, img_size)
    expected = (32, 32) if img_size == 32 else (24, 40)
    values = preprocessing(img_size=expected, channels=channels)
    transform = train_transform(values, augment.image_transforms, augment.tensor_transforms)
    for size in SIZES:
        out = transform(photograph(size))
        assert out.shape == (channels, *expected)
        assert out.isfinite().all()


def test_no_augmentation_equals_an_evaluation_without_crop():
    augment = augmentation("none", 32)
    plain = train_transform(preprocessing(), augment.image_transforms, augment.tensor_transforms)
    for size in SIZES:
        assert torch.equal(plain(photograph(size)), eval_transform(preprocessing())(photograph(size)))


def test_light_augmentation_never_flips():
    light = augmentation("light", 32)
    transforms = [*light.image_transforms, *light.tensor_transforms]
    assert not [transform for transform in transforms if isinstance(transform, v2.RandomHorizontalFlip | v2.RandomVerticalFlip)]


@pytest.mark.parametrize(
    ("image_transforms", "tensor_transforms", "message"),
    [
        ([v2.PILToTensor()], [], "PILToTensor makes a Tensor of torch.uint8, (3, 32, 32); it must make an RGB image"),
        ([v2.Grayscale()], [], "Grayscale makes a Image of mode L; it must make an RGB image"),
        ([v2.Resize(16)], [], "make images of 16x16 pixels, and the model takes 32x32"),
        ([], [v2.ToPILImage()], "ToPILImage makes a Image of mode RGB; it must make a tensor (3, 32, 32) of floats"),
        (
            [],
            [v2.CenterCrop(8)],
            "CenterCrop makes a Tensor of torch.float32, (3, 8, 8); it must make a tensor (3, 32, 32) of floats",
        ),
        ([v2.RandomErasing(p=1.0), v2.Normalize([0.5], [0.5])], [], "Normalize cannot be applied to a Image"),
    ],
    ids=["tensor", "grey", "size", "PIL", "crop", "error"],
)
def test_a_transform_that_makes_something_else_is_refused_before_training(image_transforms, tensor_transforms, message):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        train_transform(preprocessing(), image_transforms, tensor_transforms)
    assert len(str(raised.value).splitlines()) <= 3


# Images of your own


def test_an_image_is_read_from_a_path_bytes_or_pillow_as_in_an_evaluation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 4), dtype=np.uint8), "RGBA").save(file, exif=exif)
    for exif_orientation in (True, False):
        chosen = Preprocessing(
            img_size=(24, 32),
            channels=3,
            crop_pct=0.9,
            interpolation="bicubic",
            mean=(0.5,) * 3,
            std=(0.2,) * 3,
            exif_orientation=exif_orientation,
        )
        expected = eval_transform(chosen)(decoder(chosen)(file.read_bytes()))
        for given in (file, str(file), file.read_bytes(), Image.open(file)):
            assert torch.equal(swin_lab.image_transform(chosen)(given), expected)


@pytest.mark.parametrize("content", [None, b"no image"])
def test_a_file_that_is_no_image_is_refused_by_name(tmp_path, content):
    file = tmp_path / "image.png"
    if content is not None:
        file.write_bytes(content)
    values = {
        "img_size": (8, 8),
        "channels": 3,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    }
    with pytest.raises(UserError, match=r"image\.png cannot be read"):
        swin_lab.image_transform(Preprocessing(**values))(file)


def test_a_new_model_has_no_preprocessing_to_read_images_with():
    with pytest.raises(UserError, match="the model has no preprocessing"):
        swin_lab.image_transform(swin_lab.create_model("swin_micro_patch4_window4_32").preprocessing)
