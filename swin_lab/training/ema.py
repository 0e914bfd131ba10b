"""An exponential moving average (EMA) of the weights, as in the recipes of torchvision and timm.

torch.optim.swa_utils.AveragedModel compares a counter on the device with zero at every update, which makes the host wait for
the GPU; here the counter is a Python number.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swin_lab.validation import Fraction, PositiveInt, check_fields


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Contains the settings of an EMA.

    After every `every` optimizer updates, ema = d * ema + (1 - d) * weights; the first update of the EMA is a copy.
    """

    decay: Fraction
    """d, or its limit if `warmup` is true."""
    every: PositiveInt = 1
    """Number of optimizer updates between two updates of the EMA."""
    warmup: bool = True
    """Whether d is (1 + n) / (10 + n) after n updates of the EMA, up to `decay`, so that early weights soon lose influence."""

    def __post_init__(self) -> None:
        check_fields(self, "ema.")

    def decay_at(self, num_updates: int) -> float:
        """Returns d after a number of updates of the EMA."""
        if num_updates == 0:
            return 0.0
        return min(self.decay, (1 + num_updates) / (10 + num_updates)) if self.warmup else self.decay


class EmaModel:
    """Contains the averaged weights in a copy of the network.

    Args:
        config: decay and interval.
        network: the trained network, which is copied.
    """

    def __init__(self, config: EmaConfig, network: nn.Module) -> None:
        self.config = config
        self.network = deepcopy(network).requires_grad_(False).eval()
        self.num_updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Updates the average with the current weights of the trained network; copies buffers."""
        weight = 1 - self.config.decay_at(self.num_updates)
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), weight)
        for averaged, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            averaged.copy_(buffer)
        self.num_updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the averaged tensors by name."""
        return dict(self.network.state_dict())

    def load_state_dict(self, tensors: dict[str, Tensor], num_updates: int) -> None:
        """Restores the tensors of `state_dict`, and the number of updates behind them."""
        self.network.load_state_dict(tensors)
        self.num_updates = num_updates
