"""The augmentation of the published ImageNet recipes: timm's, by the settings that these recipes name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image, ImageOps

from swin_lab.errors import UserError, did_you_mean, is_number, is_whole

CROP_INTERPOLATIONS = ("random", "bilinear", "bicubic", "nearest")
ERASE_MODES = ("pixel", "rand", "const")


@dataclass(frozen=True, kw_only=True)
class TimmAugment:
    """Random crop and flip, RandAugment or jitter, and random erasing, in timm's order and with its random draws."""

    img_size: int | Sequence[int]
    """Pixels of what the network sees."""
    mean: Sequence[float]
    """Per channel, of values from 0 to 1: what rotated and shifted images are filled up with."""
    scale: Sequence[float] = (0.08, 1.0)
    """Least and most of an image's area that a crop takes."""
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    """Least and most width of a crop over its height."""
    interpolation: str = "bicubic"
    """Of the crop: bicubic, bilinear, nearest, or random (bilinear or bicubic by chance)."""
    hflip: float = 0.5
    """How often an image is mirrored."""
    vflip: float = 0.0
    """How often it is turned upside down."""
    color_jitter: float | None = 0.4
    """Strength of random brightness, contrast and saturation; unused where there is an `auto_augment`, as in timm."""
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    """timm's description of a RandAugment, AugMix or AutoAugment policy; None for none."""
    erase: float = 0.25
    """How often a rectangle is erased (arXiv 1708.04896)."""
    erase_mode: str = "pixel"
    """By noise per pixel, by one random colour (rand) or by zeros (const)."""
    erase_count: int = 1
    """Most rectangles at once."""

    def __post_init__(self) -> None:
        for name, value in (("hflip", self.hflip), ("vflip", self.vflip), ("erase", self.erase)):
            if not is_number(value) or not 0 <= value <= 1:
                raise UserError(f"augment.{name}={value} is no probability; give a number from 0 to 1")
        for name, pair in (("scale", self.scale), ("ratio", self.ratio)):
            if len(pair) != 2 or not all(map(is_number, pair)) or not 0 < pair[0] <= pair[1]:
                raise UserError(f"augment.{name}={list(pair)}: give the least and the most, two numbers above zero")
        if self.color_jitter is not None and (not is_number(self.color_jitter) or not self.color_jitter >= 0):
            raise UserError(f"augment.color_jitter={self.color_jitter} is no number of zero or more")
        for name, word, choices in (
            ("interpolation", self.interpolation, CROP_INTERPOLATIONS),
            ("erase_mode", self.erase_mode, ERASE_MODES),
        ):
            if word not in choices:
                raise UserError(f"augment.{name}={word} is unknown{did_you_mean(str(word), choices)}")
        if not is_whole(self.erase_count) or self.erase_count < 1:
            raise UserError(f"augment.erase_count={self.erase_count} is no whole number above zero")

    @property
    def image(self) -> list[Callable[[Any], Any]]:
        """What is done to the RGB image."""
        return self._parts[0]

    @property
    def tensor(self) -> list[Callable[[Any], Any]]:
        """What is done to the normalised tensor."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[list[Callable[[Any], Any]], list[Callable[[Any], Any]]]:
        from timm.data.transforms_factory import transforms_imagenet_train  # here, because timm takes seconds to import

        try:
            crop, policy, ending = transforms_imagenet_train(
                self.img_size if isinstance(self.img_size, int) else (self.img_size[0], self.img_size[1]),
                scale=(self.scale[0], self.scale[1]),
                ratio=(self.ratio[0], self.ratio[1]),
                hflip=self.hflip,
                vflip=self.vflip,
                color_jitter=self.color_jitter or 0.0,
                auto_augment=self.auto_augment,
                interpolation=self.interpolation,
                mean=tuple(self.mean) if len(self.mean) == 3 else tuple(self.mean) * 3,
                re_prob=self.erase,
                re_mode=self.erase_mode,
                re_count=self.erase_count,
                separate=True,
            )
        except (AssertionError, KeyError, ValueError, IndexError) as error:
            raise UserError(
                f"augment.auto_augment={self.auto_augment} is no policy that timm knows ({error}); "
                "give for example rand-m9-mstd0.5-inc1, augmix-m3-w3, original, v0, or null"
            ) from error
        for step in policy.transforms:
            for op in _operations(step):
                if op.name.startswith("Posterize"):
                    op.aug_fn = posterize
        return [*crop.transforms, *policy.transforms], ending.transforms[2:]  # without its tensor and its normalisation


def posterize(image: Image.Image, bits: int, fillcolor: Any = None, resample: Any = None) -> Image.Image:
    """Keeps the highest bits of every value, none of them for 0: Pillow refuses 0 since release 13, which timm asks for.

    Args:
        image: RGB.
        bits: 0 to 8.
        fillcolor: not used; timm gives it to every operation.
        resample: likewise.
    """
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def _operations(step: Any) -> list[Any]:
    """Of a RandAugment, an AugMix or an AutoAugment of timm; none of other transforms."""
    return [*getattr(step, "ops", []), *(op for line in getattr(step, "policy", []) for op in line)]
