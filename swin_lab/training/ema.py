"""A moving average of the weights beside those that learn (Polyak averaging, as torchvision's and timm's recipes have it)."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swin_lab.errors import UserError, is_number, is_whole


@dataclass(frozen=True, kw_only=True)
class Ema:
    """average = d * average + (1 - d) * weights after every `every` updates; the first averaging is a copy."""

    decay: float
    """d, once it is warm."""
    every: int = 1
    warm: bool = True
    """Whether d rises as (1 + n) / (10 + n) up to `decay` over the averagings n, so that the start is soon forgotten."""

    def __post_init__(self) -> None:
        if not is_number(self.decay) or not 0 <= self.decay < 1:
            raise UserError(f"ema.decay={self.decay}: give a number from 0 up to, not including, 1")
        if not is_whole(self.every) or self.every < 1:
            raise UserError(f"ema.every={self.every} is no whole number above zero")

    def decay_at(self, averagings: int) -> float:
        """d when the weights have been averaged so many times."""
        if averagings == 0:
            return 0.0
        return min(self.decay, (1 + averagings) / (10 + averagings)) if self.warm else self.decay


class Average:
    """The averaged weights, in a network of their own that is no part of the one that learns."""

    def __init__(self, recipe: Ema, network: nn.Module) -> None:
        self.recipe = recipe
        self.network = deepcopy(network).requires_grad_(False).eval()
        self.averagings = 0

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Averages the weights of this moment in."""
        share = 1 - self.recipe.decay_at(self.averagings)
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), share)
        for averaged, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            averaged.copy_(buffer)
        self.averagings += 1

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return dict(self.network.state_dict())

    def restore(self, tensors: dict[str, Tensor], averagings: int) -> None:
        """The inverse of `state`."""
        self.network.load_state_dict(tensors)
        self.averagings = averagings
