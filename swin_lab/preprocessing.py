"""The values by which evaluated images are preprocessed; data, weights and runs share them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from swin_lab.errors import UserError, did_you_mean
from swin_lab.validation import PositiveInt, Probability, check_fields

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ResizeMode = Literal["crop", "stretch"]
CropPct = Annotated[float, Gt(0), Le(1)]
Deviation = Annotated[float, Ge(1e-3), Le(1)]
"""Standard deviation of a channel, for values from 0 to 1; division by a smaller one would overflow low precisions."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of RGB values from 0 to 1, with which all published weights were trained."""

MAX_RESIZED_SIDE = 16_384
"""Limit of the side of an image in pixels after resizing, before its centre is cropped."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Describes the preprocessing of an evaluation; a checkpoint contains it, so that every later use has the same.

    Raises:
        UserError: a value has the wrong type or is out of range.
    """

    img_size: tuple[PositiveInt, PositiveInt]
    """Height and width of the network's input in pixels."""
    channels: Literal[1, 3]
    """3 (RGB) or 1 (greyscale)."""
    crop_pct: CropPct
    """Side of the centre crop relative to the resized image; 1.0 keeps all of a square image."""
    interpolation: Interpolation
    mean: tuple[Probability, ...]
    """Mean of each channel, for values from 0 to 1."""
    std: tuple[Deviation, ...]
    resize_mode: ResizeMode = "crop"
    """crop keeps the aspect ratio and takes the centre crop; stretch resizes to img_size and ignores the aspect ratio."""
    preset: str | None = None
    """Name of a published preprocessing: official, timm, torchvision or huggingface."""
    exif_orientation: bool = True
    """Whether images are rotated as their EXIF orientation says, in training as well. The official code, timm and torchvision
    do not; transformers does. Files without this field were written when all images were rotated."""

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UserError(f"model.in_channels={self.channels}: images have 3 channels (RGB) or 1 (greyscale)")
        check_fields(self, "data.")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise UserError(f"data.{name}={list(values)} must be {self.channels} numbers from 0 to 1, one per channel")
        if max(self.img_size) / self.crop_pct > MAX_RESIZED_SIDE:
            raise UserError(
                f"data.crop_pct={self.crop_pct} would resize images to {max(self.img_size) / self.crop_pct:.0f} pixels; "
                f"at most {MAX_RESIZED_SIDE} are possible"
            )

    @classmethod
    def for_data(
        cls,
        *,
        img_size: tuple[int, int],
        channels: int,
        crop_pct: float,
        interpolation: str,
        mean: Sequence[float],
        std: Sequence[float],
        resize_mode: str = "crop",
        preset: str | None = None,
        exif_orientation: bool = True,
    ) -> "Preprocessing":
        """Builds the preprocessing from the values of a configuration; averages RGB statistics for a network of one channel."""
        if channels == 1:
            mean, std = (_average(values) for values in (mean, std))
        return cls(
            img_size=img_size,
            channels=channels,  # type: ignore[arg-type]
            crop_pct=crop_pct,
            interpolation=interpolation,  # type: ignore[arg-type]
            mean=mean,  # type: ignore[arg-type]
            std=std,  # type: ignore[arg-type]
            resize_mode=resize_mode,  # type: ignore[arg-type]
            preset=preset,
            exif_orientation=exif_orientation,
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns plain Python, for a checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Builds the preprocessing from the dict of `as_dict`.

        Raises:
            UserError: a key is missing or unknown, or a value is invalid.
        """
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise UserError(f"unknown key preprocessing.{key}{did_you_mean(str(key), known)}")
        missing = sorted(known - set(values) - {"resize_mode", "preset", "exif_orientation"})
        if missing:
            raise UserError(f"preprocessing.{missing[0]} is missing")
        return cls(**values)

    def __str__(self) -> str:
        height, width = self.img_size
        if self.resize_mode == "stretch":
            resized = f"stretched to {height}x{width}"
        else:
            cover = [int(side / self.crop_pct) for side in self.img_size]
            side = str(cover[0]) if height == width else f"{cover[0]}x{cover[1]}"
            resized = f"shorter side {side}, centre crop {height}x{width}"
        return f"{self.preset or 'own'} ({resized}, {self.interpolation})"


def _average(values: Any) -> Any:
    """Returns the average of RGB statistics as a list of one. Returns other values unchanged; the type check rejects them."""
    if isinstance(values, list | tuple) and len(values) == 3 and all(type(value) in (int, float) for value in values):
        return [sum(values) / 3]
    return values
