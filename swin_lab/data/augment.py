"""The augmentation of the published ImageNet recipes, by timm and with the settings of these recipes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from PIL import Image, ImageOps

from swin_lab.data.device import Erasing
from swin_lab.data.shear import transform
from swin_lab.data.transforms import Transform
from swin_lab.errors import UserError
from swin_lab.validation import NonNegativeFloat, PositiveFloat, PositiveInt, Probability, Text, check_fields


@dataclass(frozen=True, kw_only=True)
class TimmAugment:
    """Applies crop, flip, RandAugment or colour jitter, and random erasing, with the order and random numbers of timm.

    Raises:
        UserError: a value has the wrong type or is out of range.
    """

    img_size: PositiveInt | tuple[PositiveInt, PositiveInt]
    """Side of a square, or height and width, of the network's input in pixels."""
    mean: tuple[Probability, ...]
    """Mean per channel, of values from 0 to 1: the fill colour of rotated and shifted images."""
    scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    """Minimum and maximum fraction of an image's area that a random crop takes."""
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    """Minimum and maximum aspect ratio (width over height) of a random crop."""
    interpolation: Literal["random", "bilinear", "bicubic", "nearest"] = "bicubic"
    """Resampling filter of the crop; `random` chooses bilinear or bicubic."""
    hflip: Probability = 0.5
    """Probability of a horizontal flip."""
    vflip: Probability = 0.0
    """Probability of a vertical flip."""
    color_jitter: NonNegativeFloat | None = 0.4
    """Strength of random brightness, contrast and saturation; not used together with `auto_augment`, as in timm."""
    auto_augment: Text | None = "rand-m9-mstd0.5-inc1"
    """timm's string for a RandAugment, AugMix or AutoAugment policy. If None, no policy is used."""
    erase: Probability = 0.25
    """Probability of random erasing (arXiv 1708.04896)."""
    erase_mode: Literal["pixel", "rand", "const"] = "pixel"
    """Replacement of the erased rectangle: noise per pixel, one random colour (rand) or zeros (const)."""
    erase_count: PositiveInt = 1
    """Maximum number of erased rectangles."""

    def __post_init__(self) -> None:
        check_fields(self, "augment.")
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise UserError(f"augment.{name}=[{low}, {high}] must be a minimum and a maximum")
        for part in (self.auto_augment or "").split("-")[1:]:
            if not re.fullmatch(r"[a-z]+\d+(\.\d+)?", part):  # timm ignores a part without a number.
                raise UserError(f"augment.auto_augment={self.auto_augment}: {part!r} must be a name and a number, such as m9")

    @property
    def image_transforms(self) -> list[Transform]:
        """Returns the transforms of the RGB image."""
        return self._transforms[0]

    @property
    def tensor_transforms(self) -> list[Transform]:
        """Returns the transforms of the normalised tensor."""
        return self._transforms[1]

    @cached_property
    def _transforms(self) -> tuple[list[Transform], list[Transform]]:
        from timm.data.transforms_factory import transforms_imagenet_train  # timm takes seconds to import

        try:
            crop, policy, ending = transforms_imagenet_train(
                self.img_size,
                scale=self.scale,
                ratio=self.ratio,
                hflip=self.hflip,
                vflip=self.vflip,
                color_jitter=self.color_jitter or 0.0,
                auto_augment=self.auto_augment,
                interpolation=self.interpolation,
                mean=self.mean if len(self.mean) == 3 else self.mean * 3,
                re_prob=self.erase,
                re_mode="const",  # Only its rectangles are used.
                re_count=self.erase_count,
                separate=True,
            )
        except (AssertionError, KeyError, ValueError, IndexError) as error:
            raise UserError(
                f"augment.auto_augment={self.auto_augment} is not a policy of timm ({error}); "
                "give for example rand-m9-mstd0.5-inc1, augmix-m3-w3, original, v0, or null"
            ) from error
        for step in policy.transforms:
            for op in _operations(step):
                if op.name.startswith("Posterize"):
                    op.aug_fn = posterize
                elif op.name.startswith(("Shear", "Translate")):
                    op.aug_fn = AlongAnAxis(op.aug_fn)
        erasers = ending.transforms[2:]  # after timm's own conversion to a tensor and normalisation
        return [*crop.transforms, *policy.transforms], [Erasing(TimmRectangles(each), self.erase_mode) for each in erasers]


class TimmRectangles:
    """Draws rectangles as timm's RandomErasing does, with the same random numbers.

    Args:
        eraser: a RandomErasing of mode const. It erases an object that takes note of what is assigned to it.
    """

    def __init__(self, eraser: Transform) -> None:
        self.eraser = eraser

    def __call__(self, channels: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
        noted = _Assignments((channels, height, width))
        self.eraser(noted)
        return noted.rectangles


class _Assignments:
    """Takes the place of an image of a given shape."""

    dtype = torch.uint8

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.rectangles: list[tuple[int, int, int, int]] = []

    def size(self) -> tuple[int, int, int]:
        return self.shape

    def __setitem__(self, area: tuple[slice, slice, slice], value: torch.Tensor) -> None:
        _, rows, columns = area
        self.rectangles.append((rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start))


class AlongAnAxis:
    """Applies timm's shear or shift to an image, faster and with the same pixels.

    Args:
        operation: timm's function, which calls `transform` of the image that it is given.
    """

    def __init__(self, operation: Callable[..., Image.Image]) -> None:
        self.operation = operation

    def __call__(self, image: Image.Image, amount: float, fillcolor: Any = None, resample: Any = None) -> Image.Image:
        return self.operation(_Transformable(image), amount, fillcolor=fillcolor, resample=resample)


class _Transformable:
    """Takes the place of an image whose `transform` is called."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.size = image.size

    def transform(
        self, size: tuple[int, int], method: int, matrix: tuple[float, ...], *, fillcolor: Any, resample: Image.Resampling
    ) -> Image.Image:
        return transform(self.image, matrix, fillcolor, resample)


def posterize(image: Image.Image, bits: int, fillcolor: Any = None, resample: Any = None) -> Image.Image:
    """Keeps the highest bits of every value; 0 bits give a black image.

    timm asks for 0 bits at the highest magnitude, which Pillow rejects since release 13.

    Args:
        image: RGB.
        bits: 0 to 8.
        fillcolor: not used; timm passes it to every operation.
        resample: not used; timm passes it to every operation.
    """
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def _operations(step: Any) -> list[Any]:
    """Returns the operations of timm's RandAugment, AugMix or AutoAugment; none of other transforms."""
    return [*getattr(step, "ops", []), *(op for line in getattr(step, "policy", []) for op in line)]
