"""The teacher of a distillation: a frozen network that sees the images of its student in its own preprocessing."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing
from swin_lab.tasks.classification import in_fp32

MODES = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "bicubic"}
"""Interpolation of a preprocessing -> that of torch, which has no lanczos."""


class Teacher(nn.Module):
    """Computes outputs of a network that is never changed: in evaluation mode, without gradients, in the precision of the run.

    It belongs to no other module, so that no checkpoint, moving average or optimizer contains its weights, and no strategy
    wraps it. It moves to the device of the first images, and takes their dtype, which autocast leaves in float32.

    Args:
        network: gives logits.
        description: source and size of the network, for the log.
        own: the preprocessing with which the network was trained.
        seen: the preprocessing of the student, whose images it gets.

    Raises:
        UserError: one of them reads colours and the other one greyscale.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, description: str, own: Preprocessing, seen: Preprocessing) -> None:
        super().__init__()
        if own.channels != seen.channels:
            raise UserError(f"it reads images of {own.channels} channels, and the student images of {seen.channels}")
        self.network = network.eval().requires_grad_(False)
        self.description = description
        self.size = own.img_size
        self.mode = MODES[own.interpolation]
        self.renormalises = (own.mean, own.std) != (seen.mean, seen.std)
        seen_mean, seen_std, mean, std = (
            torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (seen.mean, seen.std, own.mean, own.std)
        )
        self.register_buffer("scale", (seen_std / std).float())
        self.register_buffer("shift", ((seen_mean - mean) / std).float())
        changes = []
        if self.renormalises:
            changes.append(f"normalised with mean {_shown(own.mean)} and std {_shown(own.std)}")
        if own.img_size != seen.img_size:
            changes.append(f"resized from {_sides(seen.img_size)} to {_sides(own.img_size)} ({self.mode})")
        self.changes = ", ".join(changes) or "as the student sees them"
        """What is done to the images, for the log."""

    @torch.no_grad()
    def forward(self, image_BCHW: Tensor, with_maps: bool = False) -> Any:
        """Returns what the network gives for images as the student sees them.

        Args:
            image_BCHW: images (B, channels, H, W), normalised for the student.
            with_maps: whether to ask a `FeatureModel` for its maps.
        """
        if (self.scale.device, self.scale.dtype) != (image_BCHW.device, image_BCHW.dtype):
            self.to(image_BCHW)
        if self.renormalises:
            image_BCHW = image_BCHW * self.scale + self.shift
        if tuple(image_BCHW.shape[2:]) != self.size:  # also where an epoch has another size than the student
            antialias = self.mode != "nearest"
            resized = F.interpolate(in_fp32(image_BCHW), self.size, mode=self.mode, antialias=antialias)
            image_BCHW = resized.to(image_BCHW.dtype)
        return self.network(image_BCHW, with_maps=True) if with_maps else self.network(image_BCHW)


def _shown(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.3f}' for value in values)})"


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
