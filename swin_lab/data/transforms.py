"""Transforms from an RGB image to the input tensor of a network, for training and evaluation."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from swin_lab.data.decoding import UNREADABLE, decode, first_line, oriented_rgb
from swin_lab.data.device import DeviceStage, Erasing, StagedTransform, as_erasing
from swin_lab.errors import UserError
from swin_lab.preprocessing import MAX_RESIZED_SIDE, Interpolation, Preprocessing

Transform = Callable[[Any], Any]
"""Image -> image, image -> tensor, or tensor -> tensor."""


def eval_transform(preprocessing: Preprocessing) -> StagedTransform:
    """Builds the transform of an evaluation: resize, centre crop, normalise.

    Returns:
        RGB image -> (channels, H, W) of float32.
    """
    size = preprocessing.img_size
    if preprocessing.resize_mode == "stretch":
        resized: list[Transform] = [v2.Resize(size, InterpolationMode(preprocessing.interpolation))]
    else:
        resized = [ResizeToCover(size, preprocessing.crop_pct, preprocessing.interpolation), v2.CenterCrop(size)]
    return StagedTransform(v2.Compose([*resized, *_to_pixels(preprocessing)]), _normalisation(preprocessing))


def image_transform(preprocessing: Preprocessing | None) -> Callable[[str | PathLike[str] | bytes | Image.Image], Tensor]:
    """Returns a function that reads one image as an evaluation does, to use a model on images of your own.

    Args:
        preprocessing: that of the model, `model.preprocessing`.

    Returns:
        Path of an image file, its bytes, or a PIL image of any mode -> (channels, H, W) of float32. It raises UserError for a
        file that cannot be read, or that is no image.

    Raises:
        UserError: the model has no preprocessing.
    """
    if preprocessing is None:
        raise UserError("the model has no preprocessing, because it is new; load weights, or set model.preprocessing")
    transform, exif_orientation = eval_transform(preprocessing), preprocessing.exif_orientation

    def read(image: str | PathLike[str] | bytes | Image.Image) -> Tensor:
        if isinstance(image, Image.Image):
            return transform(oriented_rgb(image, exif_orientation))
        try:
            content = image if isinstance(image, bytes) else Path(image).read_bytes()
            return transform(decode(content, exif_orientation))
        except UNREADABLE as error:
            shown = "the image" if isinstance(image, bytes) else image
            raise UserError(f"{shown} cannot be read: {first_line(error)}") from error

    return read


def visible(image_CHW: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Returns what a network sees: the normalised image as (H, W, channels), with values from 0 to 1."""
    mean_C11, std_C11 = (torch.tensor(values).reshape(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (image_CHW * std_C11 + mean_C11).clamp(0, 1).permute(1, 2, 0).numpy()


def train_transform(
    preprocessing: Preprocessing, image_transforms: Sequence[Transform], tensor_transforms: Sequence[Transform]
) -> StagedTransform:
    """Builds the transform of training: the given augmentation around the conversion to a normalised tensor.

    Normalisation and a random erasing after it run on the device. With any other tensor transform, both run in the worker.

    Args:
        preprocessing: channels, mean and std.
        image_transforms: applied to the RGB image; together they must resize all images to one size.
        tensor_transforms: applied to the normalised tensor.

    Returns:
        RGB image -> (channels, H, W) of float32.

    Raises:
        UserError: a transform fails on an image of the input size, or makes something else of it.
    """
    _check_augmentation(preprocessing, image_transforms, tensor_transforms)
    to_pixels = [*image_transforms, *_to_pixels(preprocessing)]
    erasing = as_erasing(tensor_transforms[0]) if len(tensor_transforms) == 1 else None
    normalisation = _normalisation(preprocessing, erasing)
    if tensor_transforms and erasing is None:
        normalise = StagedTransform(v2.Compose(to_pixels), normalisation)
        return StagedTransform(v2.Compose([normalise, *tensor_transforms]), None)
    return StagedTransform(v2.Compose(to_pixels), normalisation)


def _check_augmentation(
    preprocessing: Preprocessing, image_transforms: Sequence[Transform], tensor_transforms: Sequence[Transform]
) -> None:
    """Applies every transform once, so that wrong ones are noticed before training starts."""
    height, width = preprocessing.img_size
    image: Any = Image.effect_noise((width, height), 64).convert("RGB")
    with random_state(0):
        for step in image_transforms:
            image = _applied(step, image)
            if not isinstance(image, Image.Image) or image.mode != "RGB":
                raise UserError(f"augment.image_transforms: {_made(step, image)}; it must make an RGB image (PIL)")
        if image.size != (width, height):
            raise UserError(
                f"augment.image_transforms make images of {image.height}x{image.width} pixels, and the model takes "
                f"{height}x{width}; remove the size from augment, or set model.img_size"
            )
        tensor: Any = StagedTransform(v2.Compose(_to_pixels(preprocessing)), _normalisation(preprocessing))(image)
        shape = tensor.shape
        for step in tensor_transforms:
            tensor = _applied(step, tensor)
            if not isinstance(tensor, Tensor) or tensor.shape != shape or not tensor.is_floating_point():
                raise UserError(
                    f"augment.tensor_transforms: {_made(step, tensor)}; it must make a tensor {tuple(shape)} of floats"
                )


def _applied(step: Transform, value: Any) -> Any:
    try:
        return step(value)
    except Exception as error:  # A transform of any library may raise anything.
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        raise UserError(f"augment: {type(step).__name__} cannot be applied to a {type(value).__name__}: {reason}") from error


def _made(step: Transform, value: Any) -> str:
    detail = f" of {value.dtype}, {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    detail = f" of mode {value.mode}" if isinstance(value, Image.Image) else detail
    return f"{type(step).__name__} makes a {type(value).__name__}{detail}"


@contextmanager
def random_state(seed: int) -> Iterator[None]:
    """Seeds the generators of Python, numpy and torch that transforms use.

    torch's generator is restored afterwards, because drop path uses it in the main process. Restoring those of Python and
    numpy, which nothing else uses, would take longer than the transforms.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _to_pixels(preprocessing: Preprocessing) -> list[Transform]:
    grey: list[Transform] = [v2.Grayscale(num_output_channels=1)] if preprocessing.channels == 1 else []
    return [*grey, pixels_of]


def pixels_of(image: Image.Image) -> Tensor:
    """Returns the pixels of an image, (channels, H, W) of uint8, as a view of (H, W, channels)."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1)


def _normalisation(preprocessing: Preprocessing, erasing: Erasing | None = None) -> DeviceStage:
    return DeviceStage(preprocessing.mean, preprocessing.std, erasing)


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
        if max(target) > MAX_RESIZED_SIDE:
            return self(_without_ends(image, max(self.height, self.width) / MAX_RESIZED_SIDE))
        return image if image.size == target else image.resize(target, self.filter)


def _without_ends(image: Image.Image, ratio: float) -> Image.Image:
    """Crops the centre of a very long image, of which a centre crop uses no more; resized, a line of pixels would fill GBs."""
    width, height = image.size
    longest = max(1, int(min(width, height) / ratio))
    kept = (longest, height) if width > height else (width, longest)
    left, top = (width - kept[0]) // 2, (height - kept[1]) // 2
    return image.crop((left, top, left + kept[0], top + kept[1]))
