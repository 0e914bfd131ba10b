"""The part of a transform that runs on the device, on a batch: normalisation and random erasing (arXiv 1708.04896)."""

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

Fill = Literal["pixel", "rand", "const"]
"""Replacement of an erased rectangle: noise per pixel, one random colour (rand) or zeros (const), as in timm."""


class Rectangle(NamedTuple):
    """Describes a rectangle of an image that is erased."""

    top: int
    left: int
    height: int
    width: int
    seed: int
    """Seed of its noise."""


class Deferred:
    """Takes the place of the pixels of a batch that are made on the device.

    Lightning moves tensors to the device and converts them to the precision of the run; it leaves this object as it is.

    Args:
        pixels: indices of images in their set (B,) -> (B, channels, H, W) of uint8, on the device of the indices.
    """

    def __init__(self, pixels: Callable[[Tensor], Tensor]) -> None:
        self.pixels = pixels


class Erasing:
    """Draws the rectangles to erase by the rules of a library's transform, and fills them later, on any device.

    Called with a normalised image (channels, H, W), it does both.

    Args:
        draw: (channels, H, W) of an image -> top, left, height and width of each rectangle, from the generators of the process.
        fill: replacement of a rectangle in a normalised image.
    """

    def __init__(self, draw: Callable[[int, int, int], list[tuple[int, int, int, int]]], fill: Fill) -> None:
        self.draw = draw
        self.fill = fill

    def __call__(self, image: Tensor) -> Tensor:
        channels, height, width = image.shape
        erased = image.clone()[None]
        self.erase(erased, [(0, rectangle) for rectangle in self.rectangles(channels, height, width)])
        return erased[0]

    def rectangles(self, channels: int, height: int, width: int) -> list[Rectangle]:
        """Draws the rectangles of an image and the seeds of their noise."""
        return [Rectangle(*drawn, seed=random.getrandbits(63)) for drawn in self.draw(channels, height, width)]

    def erase(self, images: Tensor, erased: Sequence[tuple[int, Rectangle]]) -> None:
        """Fills rectangles of normalised images, in place.

        The noise of a rectangle depends on its seed and on the kind of the device, not on the rest of the batch.

        Args:
            images: (B, channels, H, W) of float32.
            erased: position of the image in the batch, and the rectangle.
        """
        generator = torch.Generator(images.device) if erased and self.fill != "const" else None
        for position, (top, left, height, width, seed) in erased:
            area = images[position, :, top : top + height, left : left + width]
            if generator is None:
                area.zero_()
            else:
                size = area.shape if self.fill == "pixel" else (len(area), 1, 1)
                area.copy_(torch.randn(size, generator=generator.manual_seed(seed), device=images.device))


def as_erasing(transform: Any) -> Erasing | None:
    """Returns a transform of the normalised image as `Erasing`, if it is one that can run on the device, or else None."""
    if isinstance(transform, Erasing):
        return transform
    if type(transform) is v2.RandomErasing and transform.value == [0.0]:
        return Erasing(TorchvisionRectangles(transform), "const")
    return None


class TorchvisionRectangles:
    """Draws rectangles as torchvision's transform does, with the same random numbers."""

    def __init__(self, transform: v2.RandomErasing) -> None:
        self.transform = transform

    def __call__(self, channels: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
        if torch.rand(1) >= self.transform.p:
            return []
        drawn = self.transform.make_params([torch.empty(channels, height, width)])
        return [(drawn["i"], drawn["j"], drawn["h"], drawn["w"])] if drawn["v"] is not None else []


class DeviceStage:
    """Makes the input of a network from a batch of pixels, on the device of the batch.

    On a CPU, it gives the same bits as torchvision's ToTensor and Normalize.

    Args:
        mean: mean per channel, of values from 0 to 1.
        std: standard deviation per channel.
        erasing: random erasing of the normalised images. If None, nothing is erased.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], erasing: Erasing | None = None) -> None:
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.erasing = erasing

    def __call__(self, pixels: Tensor, erased: Sequence[tuple[int, Rectangle]] = ()) -> Tensor:
        """Normalises pixels and erases rectangles.

        Args:
            pixels: (B, channels, H, W) of uint8, in any memory format.
            erased: position of the image in the batch, and the rectangle.

        Returns:
            (B, channels, H, W) of float32, contiguous.
        """
        mean, std = (_constant(values, pixels.device) for values in (self.mean, self.std))
        images = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        images = images.div_(255).sub_(mean).div_(std)
        if self.erasing is not None:
            self.erasing.erase(images, erased)
        return images


def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Returns one value per channel, (channels, 1, 1), without waiting for the device."""
    constant = torch.tensor(values, pin_memory=device.type == "cuda")
    return constant.to(device, non_blocking=True)[:, None, None]


class StagedTransform:
    """Transforms an RGB image in two stages: to pixels in a worker process, and a batch of them to floats on the device.

    Called with an image, it does both on the CPU.

    Args:
        worker: RGB image -> (channels, H, W), of uint8 if there is a device stage, else of floats.
        device: the second stage. If None, the worker's tensors are the input of the network.
    """

    def __init__(self, worker: Callable[[Any], Any], device: DeviceStage | None) -> None:
        self.worker = worker
        self.device = device

    def __call__(self, image: Any) -> Tensor:
        pixels: Tensor = self.worker(image)
        if self.device is None:
            return pixels
        return self.device(pixels[None], [(0, rectangle) for rectangle in self.rectangles(pixels)])[0]

    def rectangles(self, pixels: Tensor) -> list[Rectangle]:
        """Draws the rectangles that the device will erase from an image (channels, H, W), after all other random numbers."""
        if self.device is None or self.device.erasing is None:
            return []
        channels, height, width = pixels.shape
        return self.device.erasing.rectangles(channels, height, width)

    def finish(self, images: Tensor, erased: Sequence[tuple[int, Rectangle]]) -> Tensor:
        """Applies the second stage to a batch (B, channels, H, W) of the first, on its device."""
        return images if self.device is None else self.device(images, erased)


def staged(transform: Callable[[Any], Any]) -> StagedTransform:
    """Returns a transform as `StagedTransform`; one that is none does everything in the worker."""
    return transform if isinstance(transform, StagedTransform) else StagedTransform(transform, None)
