"""The random numbers of an image's augmentation, drawn on the host exactly as timm and torchvision draw them.

DALI only applies what is drawn here. Both loaders therefore use the same crop, the same flips and the same operations at the
same magnitudes for an image of an epoch, and nothing depends on a random state of DALI's.
"""

import math
import random
from collections.abc import Sequence
from copy import deepcopy
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import torch
from torchvision import transforms as v1
from torchvision.transforms import v2

from swin_lab.data.crops import draw_crop, is_random_crop
from swin_lab.data.device import StagedTransform
from swin_lab.data.transforms import Transform, pixels_of
from swin_lab.errors import UserError

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Affine map from the coordinates (x, y) of an output pixel to those of the input, as Pillow and DALI take it."""

IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


class Kind(IntEnum):
    """Identifies an operation of the DALI graph."""

    NONE = 0
    AFFINE = 1
    BRIGHTNESS = 2
    CONTRAST = 3
    COLOR = 4
    SHARPNESS = 5
    AUTO_CONTRAST = 6
    EQUALIZE = 7
    POSTERIZE = 8
    SOLARIZE = 9
    SOLARIZE_ADD = 10


class Operation(NamedTuple):
    """Contains an operation with its parameters."""

    kind: Kind
    amount: float = 0.0
    """Factor of an enhancement, number of bits to keep, threshold or added value."""
    matrix: Matrix = IDENTITY
    """Of an affine operation."""


class Parameters(NamedTuple):
    """Contains the drawn augmentation of an image."""

    box: tuple[int, int, int, int]
    """Top, left, height and width of the crop, in pixels."""
    interpolation: str
    """Resampling filter of the crop."""
    flips: tuple[bool, bool]
    """Whether the image is flipped horizontally and vertically."""
    operations: list[Operation]


AMOUNTS = {
    "AutoContrast": Kind.AUTO_CONTRAST,
    "Equalize": Kind.EQUALIZE,
    "Posterize": Kind.POSTERIZE,
    "Solarize": Kind.SOLARIZE,
    "SolarizeAdd": Kind.SOLARIZE_ADD,
    "Color": Kind.COLOR,
    "Contrast": Kind.CONTRAST,
    "Brightness": Kind.BRIGHTNESS,
    "Sharpness": Kind.SHARPNESS,
}
"""timm's operations of at most one number, without the endings Increasing and Original, which only change how it is drawn."""

GEOMETRY = ("ShearX", "ShearY", "TranslateX", "TranslateY", "TranslateXRel", "TranslateYRel", "Rotate")
"""timm's affine operations."""


class Augmentation:
    """Draws the parameters of crop, flips, and RandAugment, AutoAugment or colour jitter.

    Args:
        image_transforms: those of the run: a random resized crop of timm or torchvision, then flips, then timm's RandAugment or
            AutoAugment, or torchvision's ColorJitter without hue.

    Raises:
        UserError: DALI has no version of a transform, or the transforms are in another order.
    """

    def __init__(self, image_transforms: Sequence[Transform]) -> None:
        self.steps = [_recording(step) for step in image_transforms]
        order = [_position(step) for step in self.steps]
        if order.count(0) != 1 or order != sorted(order):
            names = ", ".join(type(step).__name__ for step in image_transforms) or "none"
            raise UserError(
                f"data.loader=dali applies a random resized crop, then flips, then a policy, not {names}\n"
                "Choose augment=imagenet or augment=crop, or data.loader=torch"
            )
        height, width = self.steps[0].size
        self.size: tuple[int, int] = (height, width)
        self.max_operations = sum(_max_operations(step) for step in self.steps)
        self.fill = next((op.kwargs["fillcolor"] for step in self.steps for op in _timm_operations(step)), (0, 0, 0))

    def draw(self, height: int, width: int) -> Parameters:
        """Draws the parameters of an image from the generators of Python, numpy and torch, see `transforms.random_state`.

        Args:
            height: of the decoded image, in pixels.
            width: of the decoded image, in pixels.
        """
        crop = draw_crop(self.steps[0], height, width)
        horizontal = vertical = False
        operations: list[Operation] = []
        for step in self.steps[1:]:
            if isinstance(step, v1.RandomHorizontalFlip):
                horizontal ^= bool(torch.rand(1) < step.p)
            elif isinstance(step, v1.RandomVerticalFlip):
                vertical ^= bool(torch.rand(1) < step.p)
            elif isinstance(step, v2.RandomHorizontalFlip):
                horizontal ^= not bool(torch.rand(1) >= step.p)
            elif isinstance(step, v2.RandomVerticalFlip):
                vertical ^= not bool(torch.rand(1) >= step.p)
            elif isinstance(step, v1.ColorJitter):
                operations += _jitter(step)
            else:
                step(drawn := _Drawn(self.size))
                operations += drawn.operations
        box = (crop.top, crop.left, crop.height, crop.width)
        return Parameters(box, crop.filter.name.lower(), (horizontal, vertical), operations)


class _Drawn:
    """Stands in for the image that timm's policy is applied to, and keeps the operations."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.height, self.width = size
        self.operations: list[Operation] = []


def augmentation_of(transform: StagedTransform) -> Augmentation:
    """Returns the augmentation of the RGB image in a transform of training, see `transforms.train_transform`.

    Raises:
        UserError: the tensor is not only normalised and erased, or DALI has no version of a transform of the image.
    """
    steps = list(getattr(transform.worker, "transforms", []))
    if transform.device is None or steps[-1:] != [pixels_of]:
        raise UserError(
            "data.loader=dali has no augment.tensor_transforms but one random erasing, of TimmAugment or of torchvision with "
            "value 0\nRemove the others, or choose data.loader=torch"
        )
    conversion = 2 if channels_of(transform) == 1 else 1  # to greyscale, and to a tensor
    return Augmentation(steps[:-conversion])


def channels_of(transform: StagedTransform) -> int:
    """Returns the number of channels that the device normalises."""
    assert transform.device is not None
    return len(transform.device.mean)


def _recording(step: Transform) -> Any:
    """Returns a copy of a policy whose operations are recorded instead of applied; other transforms are returned unchanged."""
    if not _timm_operations(step):
        return step
    copied = deepcopy(step)
    for op in _timm_operations(copied):
        name = op.name.removesuffix("Increasing").removesuffix("Original")
        if name not in (*AMOUNTS, *GEOMETRY, "Invert"):
            raise _refused(f"timm's {op.name}")
        op.aug_fn = partial(_record, name)
    return copied


def _record(name: str, drawn: _Drawn, *level: float, fillcolor: Any, resample: Any) -> _Drawn:
    """Keeps an operation; timm calls it with the image, the level and two keywords."""
    if name in GEOMETRY:
        if isinstance(resample, tuple):
            random.choice(resample)  # timm draws the filter here; DALI has only the bilinear one
        drawn.operations.append(Operation(Kind.AFFINE, level[0], _matrix(name, level[0], drawn.height, drawn.width)))
    elif name == "Invert":
        drawn.operations.append(Operation(Kind.SOLARIZE, 0))
    else:
        drawn.operations.append(Operation(AMOUNTS[name], level[0] if level else 0.0))
    return drawn


def _matrix(name: str, level: float, height: int, width: int) -> Matrix:
    """Returns the map of one of timm's affine operations, with the arithmetic of timm and, for rotations, of Pillow."""
    if name == "ShearX":
        return (1.0, level, 0.0), (0.0, 1.0, 0.0)
    if name == "ShearY":
        return (1.0, 0.0, 0.0), (level, 1.0, 0.0)
    if name.startswith("TranslateX"):
        return (1.0, 0.0, level * width if name.endswith("Rel") else level), (0.0, 1.0, 0.0)
    if name.startswith("TranslateY"):
        return (1.0, 0.0, 0.0), (0.0, 1.0, level * height if name.endswith("Rel") else level)
    angle = -math.radians(level % 360)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return (cos, sin, x - cos * x - sin * y), (-sin, cos, y + sin * x - cos * y)


def _jitter(step: v1.ColorJitter) -> list[Operation]:
    order, brightness, contrast, saturation, _ = step.get_params(step.brightness, step.contrast, step.saturation, step.hue)
    factors = {0: (Kind.BRIGHTNESS, brightness), 1: (Kind.CONTRAST, contrast), 2: (Kind.COLOR, saturation)}
    drawn = [factors[number] for number in order.tolist() if number in factors]
    return [Operation(kind, factor) for kind, factor in drawn if factor is not None]


def _position(step: Any) -> int:
    """Returns 0 for a crop, 1 for a flip and 2 for a policy.

    Raises:
        UserError: DALI has no version of the transform.
    """
    if is_random_crop(step):
        return 0
    if isinstance(step, v1.RandomHorizontalFlip | v1.RandomVerticalFlip | v2.RandomHorizontalFlip | v2.RandomVerticalFlip):
        return 1
    if isinstance(step, v1.ColorJitter) and step.hue is None:
        return 2
    if type(step).__name__ in ("RandAugment", "AutoAugment") and _timm_operations(step):
        return 2
    raise _refused("ColorJitter with hue" if isinstance(step, v1.ColorJitter) else type(step).__name__)


def _refused(name: str) -> UserError:
    return UserError(
        f"data.loader=dali has no {name}; it has random resized crops, flips, RandAugment and AutoAugment of timm, and "
        "ColorJitter\n"
        "Choose augment=imagenet or augment=crop, or data.loader=torch"
    )


def _max_operations(step: Any) -> int:
    if isinstance(step, v1.ColorJitter):
        return sum(limits is not None for limits in (step.brightness, step.contrast, step.saturation))
    if hasattr(step, "policy"):
        return max(len(line) for line in step.policy)
    return int(getattr(step, "num_layers", 0))


def _timm_operations(step: Any) -> list[Any]:
    """Returns the operations of timm's RandAugment or AutoAugment; none of other transforms."""
    if not type(step).__module__.startswith("timm.") or type(step).__name__ not in ("RandAugment", "AutoAugment"):
        return []
    return [*getattr(step, "ops", []), *(op for line in getattr(step, "policy", []) for op in line)]
