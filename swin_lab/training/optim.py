"""Optimizers as recipes give them: a learning rate at a reference batch, weight decay where it belongs.

References: arXiv 2103.14030, section 4.1 and A2.1; the lists of undecayed parameters are those of
github.com/microsoft/Swin-Transformer at f82860b (optimizer.py and the models' no_weight_decay lists).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import nn

from swin_lab.errors import UserError, did_you_mean, is_number, is_whole

SCALINGS = ("linear", "sqrt", "none")
NEVER_DECAYED = ("relative_position_bias_table", "cpb_mlp", "logit_scale")


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW with decoupled weight decay (arXiv 1711.05101).

    Raises:
        UserError: a value that no optimizer can use.
    """

    lr: float
    """Learning rate at the reference batch."""
    reference_batch: int
    """Global batch that `lr` is meant for."""
    lr_scaling: str
    """How the rate follows the global batch: linear, sqrt or none."""
    weight_decay: float
    """Of weights with two or more axes; biases, norms and bias tables have none."""
    betas: Sequence[float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for name, value in (("lr", self.lr), ("weight_decay", self.weight_decay), ("eps", self.eps)):
            if not is_number(value) or not value >= 0:
                raise UserError(f"optimizer.{name}={value} is no number of zero or more")
        if not is_whole(self.reference_batch) or self.reference_batch < 1:
            raise UserError(f"optimizer.reference_batch={self.reference_batch} is no whole number above zero")
        if self.lr_scaling not in SCALINGS:
            raise UserError(f"optimizer.lr_scaling={self.lr_scaling} is unknown{did_you_mean(str(self.lr_scaling), SCALINGS)}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer.betas={list(self.betas)}: give two numbers from 0 up to, not including, 1")

    def scaled_lr(self, global_batch: int) -> float:
        """The highest learning rate of a run with this global batch."""
        ratio = global_batch / self.reference_batch
        return self.lr * {"linear": ratio, "sqrt": sqrt(ratio), "none": 1.0}[self.lr_scaling]

    def build(self, network: nn.Module, global_batch: int, fused: bool) -> torch.optim.AdamW:
        """The optimizer of a network's parameters; fused is one kernel for all of them."""
        groups = parameter_groups(network, self.weight_decay)
        betas = (self.betas[0], self.betas[1])
        return torch.optim.AdamW(groups, lr=self.scaled_lr(global_batch), betas=betas, eps=self.eps, fused=fused)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """All parameters as two groups: decayed, and not decayed (one axis, biases, bias tables, V2's bias MLP and logit scale).

    Frozen ones are among them: without a gradient they stay as they are, and may thaw later.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        exempt = parameter.ndim <= 1 or name.endswith(".bias") or any(part in name for part in NEVER_DECAYED)
        (plain if exempt else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
