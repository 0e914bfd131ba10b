"""Shears and shifts along one axis equal those of Pillow in every pixel."""

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from swin_lab.data.shear import transform

BICUBIC = Image.Resampling.BICUBIC
FILL = (124, 116, 104)


def photograph(width, height):
    """Returns an image with smooth, flat and noisy regions and with pure black and white."""
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1))
    image.paste("white", (width // 3, height // 4, width // 2, height // 2))
    image.paste("black", (width // 2, height // 4, 2 * width // 3, height // 2))
    image.paste(Image.fromarray(noise).crop((0, 0, width // 3, height)), (0, 0))
    return image


def assert_equal(image, matrix, fill=FILL, resample=BICUBIC):
    expected = image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=fill, resample=resample)
    actual = transform(image, matrix, fill, resample)
    assert actual.mode == expected.mode
    assert np.array_equal(np.asarray(actual), np.asarray(expected)), matrix


@pytest.mark.parametrize("size", [(64, 64), (50, 71), (90, 33), (5, 4)], ids=str)
@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("kind", ["shear", "shift", "both"])
def test_random_shears_and_shifts_equal_those_of_pillow(kind, axis, size):
    generator, image = random.Random(f"{kind}{axis}{size}"), photograph(*size)
    for _ in range(25):
        slope = generator.uniform(-0.6, 0.6) if kind != "shift" else 0
        offset = generator.uniform(-0.7, 0.7) * max(size) if kind != "shear" else 0
        assert_equal(image, (1, slope, offset, 0, 1, 0) if axis == "x" else (1, 0, 0, slope, 1, offset))


@pytest.mark.parametrize("offset", [0, 1, -3, 0.5, -2.5, 1e-12, 1 - 1e-12, 31.999, 32, 1000, -1000])
def test_shifts_on_which_rounding_decides_equal_those_of_pillow(offset):
    for matrix in ((1, 0, offset, 0, 1, 0), (1, 0, 0, 0, 1, offset)):
        assert_equal(photograph(32, 32), matrix)


@pytest.mark.parametrize("slope", [0.5, 0.25, -1, 2])
def test_shears_on_which_rounding_decides_equal_those_of_pillow(slope):
    assert_equal(photograph(32, 32), (1, slope, 0, 0, 1, 0))


@pytest.mark.parametrize(
    "other",
    [
        {"resample": Image.Resampling.BILINEAR},
        {"matrix": (1, 0.1, 0, 0.2, 1, 0)},
        {"matrix": (0.9, 0.1, 0, 0, 1, 0)},
        {"fill": None},
    ],
    ids=str,
)
def test_everything_else_is_left_to_pillow(other):
    assert_equal(photograph(32, 32), **{"matrix": (1, 0.1, 0, 0, 1, 0)} | other)


def test_greyscale_is_left_to_pillow():
    assert_equal(photograph(32, 32).convert("L"), (1, 0.1, 0, 0, 1, 0), fill=7)
