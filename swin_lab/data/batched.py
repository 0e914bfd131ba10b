"""Augmentation of whole batches on the device, with the distribution of torchvision's transforms of one image."""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import v2

from swin_lab.data.device import Rectangle, StagedTransform, TorchvisionRectangles
from swin_lab.data.draws import Draws
from swin_lab.data.transforms import ResizeToCover, pixels_of
from swin_lab.data.trivial import TrivialAugment, sampling_mode, to_device
from swin_lab.errors import UserError

RESIZING = (ResizeToCover, v2.Resize, v2.CenterCrop)
"""Transforms without random numbers, which images go through once, before they are cached."""

ERASING_TRIES = 10
"""Number of rectangles that torchvision draws until one fits into the image."""


class Step(Protocol):
    """Transforms each image of a batch with its own random numbers."""

    def draw(self, draws: Draws) -> tuple[np.ndarray, ...]:
        """Draws the parameters of a batch, (B,) each."""

    def __call__(self, images_BCHW: Tensor, *drawn: np.ndarray) -> Tensor:
        """Transforms a batch of uint8, which may be changed in place."""


class Flip:
    """Flips images along a dimension, with a probability."""

    def __init__(self, probability: float, dim: int) -> None:
        self.probability = probability
        self.dim = dim

    def draw(self, draws: Draws) -> tuple[np.ndarray, ...]:
        """Draws whether an image is flipped."""
        return (draws.uniform() < self.probability,)

    def __call__(self, images_BCHW: Tensor, *drawn: np.ndarray) -> Tensor:
        """Flips the images that are."""
        where = to_device(np.flatnonzero(drawn[0]), images_BCHW.device)
        return images_BCHW.index_copy_(0, where, images_BCHW.index_select(0, where).flip(self.dim))


class Shift:
    """Shifts images by pixels to the right and down, and fills with black.

    Args:
        draw: draws -> the shifts to the right and down, (B,) of int64 each.
        reach: maximum shift in pixels, in any direction.
    """

    def __init__(self, draw: Callable[[Draws], tuple[np.ndarray, ...]], reach: int) -> None:
        self.draw = draw
        self.reach = reach

    def __call__(self, images_BCHW: Tensor, *drawn: np.ndarray) -> Tensor:
        """Shifts every image."""
        batch, _, height, width = images_BCHW.shape
        windows = pad(images_BCHW, (self.reach,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        left, top = (to_device(self.reach - shift_B, images_BCHW.device) for shift_B in drawn)
        return windows[torch.arange(batch, device=images_BCHW.device), :, top, left]


class Grey:
    """Makes images of one channel, with the values of Pillow's conversion to mode L."""

    def draw(self, draws: Draws) -> tuple[np.ndarray, ...]:
        """Draws nothing."""
        return ()

    def __call__(self, images_BCHW: Tensor, *drawn: np.ndarray) -> Tensor:
        """Returns (B, 1, H, W); Pillow adds its weights, ITU-R 601-2, as integers of 16 bits."""
        red, green, blue = images_BCHW.to(torch.int32).split(1, dim=1)
        return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)


class BatchAugmentation:
    """Augments batches of resized images as a training transform does one image.

    Args:
        transform: the transform of training.
        img_size: height and width of the network's input, to which the transform resizes first.

    Raises:
        UserError: a transform cannot be applied to a batch.
    """

    def __init__(self, transform: StagedTransform, img_size: tuple[int, int]) -> None:
        worker = getattr(transform.worker, "transforms", [transform.worker])
        if transform.device is None or worker[-1] is not pixels_of:
            raise unsupported(worker[-1])
        self.resizing = list(takewhile(lambda each: isinstance(each, RESIZING), worker))
        self.steps = [_as_step(each, img_size) for each in worker[len(self.resizing) : -1]]
        self.eraser = None
        if transform.device.erasing is not None:
            rectangles = transform.device.erasing.draw
            if not isinstance(rectangles, TorchvisionRectangles):
                raise unsupported(transform.device.erasing)
            self.eraser = rectangles.transform
        self.img_size = img_size

    def resized(self, image: Image.Image) -> Tensor:
        """Returns the pixels of an RGB image before the random part, (3, H, W) of uint8."""
        for each in self.resizing:
            image = each(image)
        return pixels_of(image)

    def draw(self, draws: Draws) -> tuple[list[tuple[np.ndarray, ...]], list[tuple[int, Rectangle]]]:
        """Draws the parameters of each step, and the rectangles that are erased from the normalised images."""
        drawn = [step.draw(draws) for step in self.steps]
        return drawn, [] if self.eraser is None else draw_rectangles(self.eraser, draws, *self.img_size)

    def __call__(self, images_BCHW: Tensor, drawn: Sequence[tuple[np.ndarray, ...]]) -> Tensor:
        """Applies the steps to a batch (B, 3, H, W) of uint8, which may be changed in place."""
        for step, parameters in zip(self.steps, drawn, strict=True):
            images_BCHW = step(images_BCHW, *parameters)
        return images_BCHW


def draw_rectangles(transform: v2.RandomErasing, draws: Draws, height: int, width: int) -> list[tuple[int, Rectangle]]:
    """Draws the rectangles of a batch from the distribution of torchvision's transform.

    Returns:
        The position of an image in the batch, and its rectangle.
    """
    pending_B = draws.uniform() < transform.p
    top_B, left_B = draws.uniform(), draws.uniform()  # The number of tries, which come last, depends on the batch.
    (smallest, largest), (low, high) = transform.scale, np.log(transform.ratio)
    rectangles = []
    for _ in range(ERASING_TRIES):
        area_B = height * width * (smallest + (largest - smallest) * draws.uniform())
        ratio_B = np.exp(low + (high - low) * draws.uniform())
        height_B, width_B = np.rint(np.sqrt(area_B * ratio_B)), np.rint(np.sqrt(area_B / ratio_B))
        fits_B = pending_B & (height_B < height) & (width_B < width)
        for position in np.flatnonzero(fits_B).tolist():
            tall, wide = int(height_B[position]), int(width_B[position])
            top, left = int(top_B[position] * (height - tall + 1)), int(left_B[position] * (width - wide + 1))
            rectangles.append((position, Rectangle(top, left, tall, wide, seed=0)))  # filled with zeros
        pending_B &= ~fits_B
        if not pending_B.any():
            break
    return rectangles


def _as_step(transform: Any, img_size: tuple[int, int]) -> Step:
    """Returns a transform of one image as that of a batch, or raises UserError."""
    kind, black = type(transform), _is_black(getattr(transform, "fill", None))
    if kind is v2.RandomHorizontalFlip:
        return Flip(transform.p, -1)
    if kind is v2.RandomVerticalFlip:
        return Flip(transform.p, -2)
    if kind is v2.Grayscale and transform.num_output_channels == 1:
        return Grey()
    if kind is v2.TrivialAugmentWide and black and sampling_mode(transform) is not None:
        return TrivialAugment(transform)
    if kind is v2.RandomAffine and black and not any(transform.degrees) and transform.scale is transform.shear is None:
        return _shift_of_affine(transform, img_size)
    if kind is v2.RandomCrop and black and transform.padding_mode == "constant" and tuple(transform.size) == img_size:
        return _shift_of_crop(transform)
    raise unsupported(transform)


def _shift_of_affine(transform: v2.RandomAffine, img_size: tuple[int, int]) -> Shift:
    height, width = img_size
    across, down = transform.translate or (0, 0)
    reach = (across * width, down * height)

    def draw(draws: Draws) -> tuple[np.ndarray, ...]:
        return tuple(np.rint((2 * draws.uniform() - 1) * each).astype(np.int64) for each in reach)

    return Shift(draw, int(np.rint(max(reach))))


def _shift_of_crop(transform: v2.RandomCrop) -> Shift:
    left, right, top, bottom = transform.padding or (0, 0, 0, 0)

    def draw(draws: Draws) -> tuple[np.ndarray, ...]:
        down_B = top - draws.integers(top + bottom + 1)
        return left - draws.integers(left + right + 1), down_B

    return Shift(draw, max(left, right, top, bottom))


def _is_black(fill: Any) -> bool:
    return fill is None or fill == 0


def unsupported(transform: Any) -> UserError:
    """Returns the error of a transform that cannot be applied to a batch."""
    return UserError(
        f"data.cache=device cannot apply {type(transform).__name__} with these settings to a batch; use data.cache=memory, or "
        "shifts, flips, TrivialAugmentWide and RandomErasing after resizing, such as augment=cifar"
    )
