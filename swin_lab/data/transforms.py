"""From an image to the tensor a network sees, in training and in evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode, ToTensor, v2

from swin_lab.errors import UserError, did_you_mean, is_number
from swin_lab.preprocessing import Preprocessing as SharedPreprocessing

INTERPOLATIONS = {name.lower(): Image.Resampling[name] for name in ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS")}
INTERPOLATION_MODES = {name: InterpolationMode(name) for name in INTERPOLATIONS}
RESIZE_MODES = ("crop", "stretch")

Step = Callable[[Any], Any]
"""Image -> image, or tensor -> tensor."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an evaluated image becomes a tensor; a checkpoint carries it, so that every later use does the same."""

    img_size: tuple[int, int]
    """Height and width in pixels of what the network sees."""
    channels: int
    """3 (RGB) or 1 (grey)."""
    crop_pct: float
    """Part of the resized image's side that the centre crop keeps; 1.0 keeps all of a square image."""
    interpolation: str
    mean: tuple[float, ...]
    """Per channel, of values from 0 to 1."""
    std: tuple[float, ...]
    resize_mode: str = "crop"
    """crop: scaled with sides in proportion, then cropped; stretch: scaled to img_size, whatever its proportions."""
    preset: str | None = None
    """Whose evaluation this is, where it is a published one: official, timm, torchvision or huggingface."""

    @classmethod
    def checked(
        cls,
        img_size: tuple[int, int],
        channels: int,
        crop_pct: float,
        interpolation: str,
        mean: Sequence[float],
        std: Sequence[float],
        resize_mode: str = "crop",
        preset: str | None = None,
    ) -> "Preprocessing":
        """Raises UserError for a value that cannot be; RGB statistics are averaged for one channel."""
        if channels not in (1, 3):
            raise UserError(f"model.in_channels={channels}: images have 3 channels (RGB) or 1 (grey)")
        if not is_number(crop_pct) or not 0 < crop_pct <= 1:
            raise UserError(f"data.crop_pct={crop_pct} is no part of a side; give a number above 0, at most 1")
        if interpolation not in INTERPOLATIONS:
            raise UserError(f"data.interpolation={interpolation} is unknown{did_you_mean(str(interpolation), INTERPOLATIONS)}")
        if resize_mode not in RESIZE_MODES:
            raise UserError(f"data.resize_mode={resize_mode} is unknown{did_you_mean(str(resize_mode), RESIZE_MODES)}")
        for name, values in (("mean", mean), ("std", std)):
            listed = isinstance(values, Sequence) and len(values) in (channels, 3) and all(map(is_number, values))
            if not listed or not all(0 <= value <= 1 for value in values) or (name == "std" and min(values) == 0):
                raise UserError(f"data.{name}={values}: give {channels} numbers from 0 to 1, one per channel")
        if channels == 1:
            mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
        return cls(
            img_size=img_size,
            channels=channels,
            crop_pct=crop_pct,
            interpolation=interpolation,
            mean=tuple(mean),
            std=tuple(std),
            resize_mode=resize_mode,
            preset=preset,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain Python, for a checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `as_dict`."""
        as_tuples: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**as_tuples)

    def __str__(self) -> str:
        height, width = self.img_size
        if self.resize_mode == "stretch":
            fitted = f"stretched to {height}x{width}"
        else:
            cover = ResizeToCover(self.img_size, self.crop_pct)
            resized = cover.height if height == width else f"{cover.height}x{cover.width}"
            fitted = f"shorter side {resized}, centre crop {height}x{width}"
        return f"{self.preset or 'own'} ({fitted}, {self.interpolation})"

    def for_evaluation(self) -> v2.Compose:
        """Image -> (channels, height, width) of float32: resize, centre crop, normalise."""
        if self.resize_mode == "stretch":
            fitted = [v2.Resize(self.img_size, INTERPOLATION_MODES[self.interpolation])]
        else:
            fitted = [ResizeToCover(self.img_size, self.crop_pct, self.interpolation), v2.CenterCrop(self.img_size)]
        return v2.Compose([*fitted, *self._to_tensor()])

    def for_training(self, on_image: Sequence[Step], on_tensor: Sequence[Step]) -> v2.Compose:
        """Image -> (channels, height, width) of float32, through the given augmentations.

        Args:
            on_image: applied to the RGB image; together they must give one size.
            on_tensor: applied after normalising.
        """
        return v2.Compose([*on_image, *self._to_tensor(), *on_tensor])

    def _to_tensor(self) -> list[Step]:
        grey = [v2.Grayscale(num_output_channels=1)] if self.channels == 1 else []
        return [*grey, ToTensor(), v2.Normalize(self.mean, self.std)]  # v2's own conversion differs in the last bit


class ResizeToCover(nn.Module):
    """Scales an image, sides in proportion, to the smallest size whose centre crop of `size` keeps `crop_pct` of it.

    For a square `size` the shorter side becomes int(size / crop_pct), as the published evaluations have it.

    Args:
        size: one number or (height, width).
        crop_pct: part of the resized side that the crop keeps.
        interpolation: nearest, bilinear, bicubic or lanczos.
    """

    def __init__(self, size: int | Sequence[int], crop_pct: float = 1.0, interpolation: str = "bicubic") -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        self.height, self.width = int(height / crop_pct), int(width / crop_pct)
        self.filter = INTERPOLATIONS[interpolation]

    def forward(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if height * self.width <= width * self.height:  # the height decides
            wanted = (max(self.width, width * self.height // height), self.height)
        else:
            wanted = (self.width, max(self.height, height * self.width // width))
        return image if image.size == wanted else image.resize(wanted, self.filter)


def eval_transform(preprocessing: SharedPreprocessing) -> v2.Compose:
    """Builds the transform of an evaluation: resize, centre crop, normalise."""
    return Preprocessing(**asdict(preprocessing)).for_evaluation()
