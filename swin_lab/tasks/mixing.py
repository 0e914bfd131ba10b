"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899), by timm's Mixup, on the device of the batch."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.validation import NonNegativeFloat, Probability, check_fields


@runtime_checkable
class Mixer(Protocol):
    """Defines the interface of the choices of `mixing=`."""

    def mix(self, images: Tensor, labels: Tensor, num_classes: int, smoothing: float, seed: int) -> tuple[Tensor, Tensor]:
        """Mixes images (B, channels, H, W) and labels (B,) and returns mixed images and targets (B, num_classes)."""


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixes each image of a batch with the image at the mirrored position of the batch."""

    mixup: NonNegativeFloat
    """Alpha of the Beta distribution of mixup ratios; 0 disables mixup."""
    cutmix: NonNegativeFloat
    """Alpha of the Beta distribution of CutMix areas; 0 disables CutMix."""
    prob: Probability = 1.0
    """Probability that a batch, pair or element is mixed."""
    switch_prob: Probability = 0.5
    """Probability of CutMix instead of mixup if both are enabled."""
    mode: Literal["batch", "pair", "elem"] = "batch"
    """Whether a batch, a pair of images or each image has its own random ratio."""

    def __post_init__(self) -> None:
        check_fields(self, "mixing.")
        if self.mixup == self.cutmix == 0:
            raise UserError("mixing.mixup and mixing.cutmix are both 0; choose mixing=none")

    def mix(self, images: Tensor, labels: Tensor, num_classes: int, smoothing: float, seed: int) -> tuple[Tensor, Tensor]:
        """Mixes a batch; the given images may be written to.

        Args:
            images: (B, channels, H, W).
            labels: (B,).
            num_classes: number of classes of the targets.
            smoothing: label smoothing, the fraction of every target that is spread over all classes.
            seed: seed of the random numbers; the same seed gives the same mix.

        Returns:
            Images, and targets (B, num_classes). The last image of an odd batch is not mixed.
        """
        from timm.data.mixup import Mixup, mixup_target  # timm takes seconds to import

        mixer = Mixup(
            self.mixup,
            self.cutmix,
            prob=self.prob,
            switch_prob=self.switch_prob,
            mode=self.mode,
            label_smoothing=smoothing,
            num_classes=num_classes,
        )
        even = len(labels) // 2 * 2
        state = np.random.get_state()
        np.random.seed(seed % 2**32)
        mixed, targets = mixer(images[:even], labels[:even])
        np.random.set_state(state)
        if even == len(labels):
            return mixed, targets
        last = mixup_target(labels[even:], num_classes, smoothing=smoothing)
        return torch.cat([mixed, images[even:]]), torch.cat([targets, last])
