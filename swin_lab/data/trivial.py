"""TrivialAugment (arXiv 2103.10158) of a batch on the device, with the operations and magnitudes of torchvision's transform."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from swin_lab.data.draws import Draws

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in torchvision's greyscale of a tensor."""


class TrivialAugment:
    """Applies one operation of random magnitude to each image of a batch, as torchvision's transform does to a tensor.

    Pixels equal those of torchvision's functions on uint8 tensors, except that few values (0.2 per cent after `Color`, fewer
    after others) are rounded to the next integer.

    Args:
        transform: torchvision's transform, whose fill must be black, with a `sampling_mode`.
    """

    def __init__(self, transform: v2.TrivialAugmentWide) -> None:
        mode = sampling_mode(transform)
        assert mode is not None
        self.mode = mode
        self.bins = transform.num_magnitude_bins
        self.names = list(transform._AUGMENTATION_SPACE)
        table = []
        signed = []
        for magnitudes, has_sign in transform._AUGMENTATION_SPACE.values():
            # Height and width, which no magnitude depends on.
            values = magnitudes(self.bins, 0, 0)
            table.append(np.zeros(self.bins) if values is None else np.asarray(values, dtype=np.float64))
            signed.append(has_sign)
        self.table, self.signed = np.stack(table), np.array(signed)

    def draw(self, draws: Draws) -> tuple[np.ndarray, ...]:
        """Draws the operation and its magnitude, (B,) each."""
        operation_B = draws.integers(len(self.names))
        magnitude_B = self.table[operation_B, draws.integers(self.bins)]
        negative_B = (draws.uniform() <= 0.5) & self.signed[operation_B]
        return operation_B, np.where(negative_B, -magnitude_B, magnitude_B)

    def __call__(self, images_BCHW: Tensor, *drawn: np.ndarray) -> Tensor:
        """Applies each operation to its part of a batch of uint8, in place."""
        operation_B, magnitude_B = drawn
        for number, name in enumerate(self.names):
            positions = np.flatnonzero(operation_B == number)
            if name == "Identity" or len(positions) == 0:
                continue
            where = to_device(positions, images_BCHW.device)
            changed = self.apply(name, images_BCHW.index_select(0, where), magnitude_B[positions])
            images_BCHW.index_copy_(0, where, changed)
        return images_BCHW

    def apply(self, name: str, images_BCHW: Tensor, magnitude_B: np.ndarray) -> Tensor:
        """Applies one operation of torchvision's table to images of uint8, each with its own magnitude."""
        if name == "AutoContrast":
            return functional.autocontrast(images_BCHW)
        if name == "Equalize":
            return functional.equalize(images_BCHW)
        if name == "Posterize":
            lowest = 256 - 2 ** (8 - magnitude_B.astype(np.int64))
            return images_BCHW & _per_image(lowest.astype(np.uint8), images_BCHW)
        if name == "Solarize":
            threshold = _per_image((255 * magnitude_B).astype(np.float32), images_BCHW)
            return torch.where(images_BCHW >= threshold, 255 - images_BCHW, images_BCHW)
        if name in ("Brightness", "Color", "Contrast", "Sharpness"):
            return _blended(name, images_BCHW, 1.0 + magnitude_B)
        return _moved(images_BCHW, _inverse_maps(name, magnitude_B, *images_BCHW.shape[2:]), self.mode)


def sampling_mode(transform: v2.TrivialAugmentWide) -> str | None:
    """Returns nearest or bilinear, the resampling filters of tensors; None if the transform has another one."""
    given = transform.interpolation  # torchvision's enum, its value, or Pillow's number
    name = {0: "nearest", 2: "bilinear"}.get(given) if isinstance(given, int) else getattr(given, "value", given)
    return name if name in ("nearest", "bilinear") else None


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Copies an array to a device without waiting for it."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _per_image(values_B: np.ndarray, images_BCHW: Tensor) -> Tensor:
    return to_device(values_B, images_BCHW.device)[:, None, None, None]


def _blended(name: str, images_BCHW: Tensor, factor_B: np.ndarray) -> Tensor:
    """Returns factor x image + (1 - factor) x degenerate image: black, greyscale, mean or blurred, depending on the name."""
    factor = _per_image(factor_B.astype(np.float32), images_BCHW)
    floats = images_BCHW.float()
    if name == "Brightness":
        return floats.mul_(factor).clamp_(0, 255).to(torch.uint8)
    rest = _per_image((1.0 - factor_B).astype(np.float32), images_BCHW)
    if name == "Sharpness":
        if min(images_BCHW.shape[2:]) > 2:
            inner = floats[..., 1:-1, 1:-1]
            inner.add_(_blurred(floats).sub_(inner).mul_(rest))
    else:
        degenerate = _grey(floats)
        if name == "Contrast":
            degenerate = degenerate.mean(dim=(-3, -2, -1), keepdim=True)
        floats = floats.mul_(factor).add_(degenerate.mul_(rest))
    return floats.clamp_(0, 255).to(torch.uint8)


def _grey(floats_BCHW: Tensor) -> Tensor:
    """Returns the greyscale of integers from 0 to 255, rounded down, (B, 1, H, W)."""
    if floats_BCHW.shape[1] == 1:
        return floats_BCHW.clone()
    red, green, blue = floats_BCHW.split(1, dim=1)
    return red.mul(GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2]).floor_()


def _blurred(floats_BCHW: Tensor) -> Tensor:
    """Returns the mean of 3x3 pixels with a five times heavier centre, rounded, (B, C, H - 2, W - 2).

    The sums are integers, exact in any order and therefore the same in any batch.
    """
    batch, channels, height, width = floats_BCHW.shape
    weights = torch.ones(1, 1, 3, 3, device=floats_BCHW.device)
    weights[..., 1, 1] = 5
    sums = conv2d(floats_BCHW.reshape(-1, 1, height, width), weights)
    return sums.div_(13).round_().view(batch, channels, height - 2, width - 2)


def _inverse_maps(name: str, magnitude_B: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns (B, 2, 3): the source of a pixel, from its coordinates relative to the centre of the image, in pixels."""
    maps_B23 = np.tile(np.eye(2, 3), (len(magnitude_B), 1, 1))
    if name == "ShearX":  # around the top left corner, as in torchvision
        maps_B23[:, 0, 1], maps_B23[:, 0, 2] = magnitude_B, magnitude_B * height / 2
    elif name == "ShearY":
        maps_B23[:, 1, 0], maps_B23[:, 1, 2] = magnitude_B, magnitude_B * width / 2
    elif name == "TranslateX":
        maps_B23[:, 0, 2] = -np.trunc(magnitude_B)
    elif name == "TranslateY":
        maps_B23[:, 1, 2] = -np.trunc(magnitude_B)
    elif name == "Rotate":
        cosine_B, sine_B = np.cos(np.radians(magnitude_B)), np.sin(np.radians(magnitude_B))
        maps_B23[:, 0, 0], maps_B23[:, 0, 1] = cosine_B, -sine_B
        maps_B23[:, 1, 0], maps_B23[:, 1, 1] = sine_B, cosine_B
    else:
        raise AssertionError(name)
    return maps_B23.astype(np.float32)


def _moved(images_BCHW: Tensor, maps_B23: np.ndarray, mode: str) -> Tensor:
    """Samples images at the sources of their pixels; outside an image it is black."""
    height, width = images_BCHW.shape[2:]
    device = images_BCHW.device
    maps = to_device(maps_B23, device)[:, :, :, None, None]
    y_H1 = torch.arange(height, device=device)[:, None] - (height - 1) / 2
    x_W = torch.arange(width, device=device) - (width - 1) / 2
    x_BHW = (maps[:, 0, 0] * x_W + maps[:, 0, 1] * y_H1 + maps[:, 0, 2]) / (width / 2)
    y_BHW = (maps[:, 1, 0] * x_W + maps[:, 1, 1] * y_H1 + maps[:, 1, 2]) / (height / 2)
    grid_BHW2 = torch.stack([x_BHW, y_BHW], dim=-1)
    sampled = grid_sample(images_BCHW.float(), grid_BHW2, mode=mode, padding_mode="zeros", align_corners=False)
    return sampled.round_().to(torch.uint8)
