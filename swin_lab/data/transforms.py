"""Transforms from an RGB image to the input tensor of a network, for training and evaluation."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode, ToTensor, v2

from swin_lab.preprocessing import Interpolation, Preprocessing

Transform = Callable[[Any], Any]
"""Image -> image, image -> tensor, or tensor -> tensor."""


def eval_transform(preprocessing: Preprocessing) -> v2.Compose:
    """Builds the transform of an evaluation: resize, centre crop, normalise.

    Returns:
        RGB image -> (channels, H, W) of float32.
    """
    size = preprocessing.img_size
    if preprocessing.resize_mode == "stretch":
        resized: list[Transform] = [v2.Resize(size, InterpolationMode(preprocessing.interpolation))]
    else:
        resized = [ResizeToCover(size, preprocessing.crop_pct, preprocessing.interpolation), v2.CenterCrop(size)]
    return v2.Compose([*resized, *_to_tensor(preprocessing)])


def train_transform(
    preprocessing: Preprocessing, image_transforms: Sequence[Transform], tensor_transforms: Sequence[Transform]
) -> v2.Compose:
    """Builds the transform of training: the given augmentation around the conversion to a normalised tensor.

    Args:
        preprocessing: channels, mean and std.
        image_transforms: applied to the RGB image; together they must resize all images to one size.
        tensor_transforms: applied to the normalised tensor.

    Returns:
        RGB image -> (channels, H, W) of float32.
    """
    return v2.Compose([*image_transforms, *_to_tensor(preprocessing), *tensor_transforms])


def _to_tensor(preprocessing: Preprocessing) -> list[Transform]:
    grey = [v2.Grayscale(num_output_channels=1)] if preprocessing.channels == 1 else []
    # The conversion of v2 differs from ToTensor, which published evaluations use, in the last bit.
    return [*grey, ToTensor(), v2.Normalize(list(preprocessing.mean), list(preprocessing.std))]


class ResizeToCover(nn.Module):
    """Resizes an image, keeping its aspect ratio, to the smallest size whose centre crop of `size` keeps `crop_pct` of it.

    For a square `size` the shorter side becomes int(size / crop_pct), as in the published evaluations.

    Args:
        size: side of a square, or (height, width), in pixels.
        crop_pct: fraction of the resized side that the crop keeps.
        interpolation: resampling filter.
    """

    def __init__(self, size: int | Sequence[int], crop_pct: float = 1.0, interpolation: Interpolation = "bicubic") -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        self.height, self.width = int(height / crop_pct), int(width / crop_pct)
        self.filter = Image.Resampling[interpolation.upper()]

    def forward(self, image: Image.Image) -> Image.Image:
        """Resizes a PIL image."""
        width, height = image.size
        if height * self.width <= width * self.height:  # the height decides
            target = (max(self.width, width * self.height // height), self.height)
        else:
            target = (self.width, max(self.height, height * self.width // width))
        return image if image.size == target else image.resize(target, self.filter)
