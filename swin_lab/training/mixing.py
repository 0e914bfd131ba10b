"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899), by timm's Mixup, on the device the batch is on."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from swin_lab.errors import UserError, did_you_mean, is_number

if TYPE_CHECKING:
    from timm.data.mixup import Mixup

MODES = ("batch", "pair", "elem")


class Mixer(Protocol):
    """What `mixing=` chooses."""

    def mix(self, images: Tensor, labels: Tensor, num_classes: int, smoothing: float, draw: int) -> tuple[Tensor, Tensor]:
        """Images (B, channels, H, W) and labels (B,) -> mixed images and targets (B, num_classes)."""


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Each image is mixed with the one at the mirrored place of its batch."""

    mixup: float
    """Alpha of the Beta distribution that a mix is drawn from; 0: no mixup."""
    cutmix: float
    """Alpha likewise; 0: no CutMix."""
    prob: float = 1.0
    """How often a batch, pair or element is mixed."""
    switch_prob: float = 0.5
    """How often it is cut, where both are wanted."""
    mode: str = "batch"
    """Whether a batch, a pair of images or each image draws for itself."""

    def __post_init__(self) -> None:
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not is_number(value) or not 0 <= value < float("inf"):
                raise UserError(f"mixing.{name}={value} is no number of zero or more")
        if self.mixup == self.cutmix == 0:
            raise UserError("mixing.mixup and mixing.cutmix are both 0; choose mixing=none")
        for name, value in (("prob", self.prob), ("switch_prob", self.switch_prob)):
            if not is_number(value) or not 0 <= value <= 1:
                raise UserError(f"mixing.{name}={value} is no probability; give a number from 0 to 1")
        if self.mode not in MODES:
            raise UserError(f"mixing.mode={self.mode} is unknown{did_you_mean(str(self.mode), MODES)}")

    def mix(self, images: Tensor, labels: Tensor, num_classes: int, smoothing: float, draw: int) -> tuple[Tensor, Tensor]:
        """Mixes a batch; the images given may be written to.

        Args:
            images: (B, channels, H, W).
            labels: (B,).
            num_classes: of the targets.
            smoothing: part of every target that is spread over all classes.
            draw: seeds what is random, so that a batch is mixed the same way whenever it is trained on.

        Returns:
            Images, and targets (B, num_classes). Of an odd batch the last image stays as it is.
        """
        from timm.data.mixup import mixup_target

        mixer, even = self._mixer, len(labels) // 2 * 2
        mixer.num_classes, mixer.label_smoothing = num_classes, smoothing
        state = np.random.get_state()
        np.random.seed(draw % 2**32)
        mixed, targets = mixer(images[:even], labels[:even])
        np.random.set_state(state)
        if even == len(labels):
            return mixed, targets
        last = mixup_target(labels[even:], num_classes, smoothing=smoothing)
        return torch.cat([mixed, images[even:]]), torch.cat([targets, last])

    @cached_property
    def _mixer(self) -> "Mixup":
        from timm.data.mixup import Mixup  # here, because timm takes seconds to import

        return Mixup(self.mixup, self.cutmix, prob=self.prob, switch_prob=self.switch_prob, mode=self.mode)
