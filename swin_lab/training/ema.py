"""An exponential moving average (EMA) of the weights, as in the recipes of torchvision and timm.

torch.optim.swa_utils.AveragedModel compares a counter on the device with zero at every update, which makes the host wait for
the GPU; here the counter is a Python number.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swin_lab.training.sharding import like, load_whole, whole
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
    """Contains the averaged weights, in fp32 at least, and a copy of the network that has them.

    With a decay of 0.9999, an update changes a weight by a ten-thousandth of its distance to the trained one. A half-precision
    number has two or three digits, so that such an average would never change (precision=bf16-true and 16-true).

    Args:
        config: decay and interval.
        network: the trained network, which is copied.
    """

    def __init__(self, config: EmaConfig, network: nn.Module) -> None:
        self.config = config
        self.network = deepcopy(network).requires_grad_(False).eval()
        """The averaged network, in the precision of the trained one; `round_weights` updates it."""
        self.num_updates = 0
        self._averages: dict[str, Tensor] = dict(self.network.named_parameters())

    def shard(self, shard: Callable[[nn.Module], None]) -> None:
        """Has the averaged network distributed over the processes."""
        shard(self.network)
        self._averages = dict(self.network.named_parameters())

    def move(self, like: Tensor) -> None:
        """Moves the network to the device and precision of a trained weight; the averages remain in fp32 at least."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        averages = {name: average.detach().to(like.device, dtype) for name, average in self._averages.items()}
        self.network.to(like)
        self._averages = dict(self.network.named_parameters()) if like.dtype == dtype else averages

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Updates the average with the current weights of the trained network; copies buffers."""
        weight = 1 - self.config.decay_at(self.num_updates)
        averages: list[Tensor] = list(self._averages.values())
        weights = [parameter.to(average.dtype) for average, parameter in zip(averages, network.parameters(), strict=True)]
        torch._foreach_lerp_(averages, weights, weight)
        for averaged, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            averaged.copy_(buffer)
        self.num_updates += 1

    @torch.no_grad()
    def round_weights(self) -> None:
        """Gives the network the averages, rounded to its precision; at full precision, it has them already."""
        for name, parameter in self.network.named_parameters():
            if parameter is not self._averages[name]:
                parameter.copy_(self._averages[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the averaged tensors by name, whole; every process asks for them."""
        tensors = dict(self.network.state_dict()) | {name: average.detach() for name, average in self._averages.items()}
        return {name: whole(tensor) for name, tensor in tensors.items()}

    def load_state_dict(self, tensors: dict[str, Tensor], num_updates: int) -> None:
        """Restores the tensors of `state_dict`, and the number of updates behind them."""
        load_whole(self.network, tensors)
        with torch.no_grad():
            for name, average in self._averages.items():
                average.copy_(like(tensors[name], average))
        self.num_updates = num_updates
