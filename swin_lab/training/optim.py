"""Optimizers as recipes give them: a learning rate at a reference batch, weight decay where it belongs, rates per layer.

References: arXiv 2103.14030, section 4.1 and A2.1; the lists of undecayed parameters are those of
github.com/microsoft/Swin-Transformer at f82860b (optimizer.py and the models' no_weight_decay lists); layer-wise decay is that
of its optimizer.py for SimMIM fine-tuning (arXiv 2111.09886, appendix).
"""

from collections.abc import Callable, Sequence
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
    layer_decay: float | None = None
    """The rate of a layer over that of the layer after it, from the head down; None: all layers learn alike."""

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
        if self.layer_decay is not None and (not is_number(self.layer_decay) or not 0 < self.layer_decay <= 1):
            raise UserError(f"optimizer.layer_decay={self.layer_decay} is no number above 0, at most 1; null for none")

    def scaled_lr(self, global_batch: int) -> float:
        """The highest learning rate of a run with this global batch."""
        ratio = global_batch / self.reference_batch
        return self.lr * {"linear": ratio, "sqrt": sqrt(ratio), "none": 1.0}[self.lr_scaling]

    def groups(self, network: nn.Module, global_batch: int) -> list[dict[str, Any]]:
        """The parameter groups of a network, each with `lr` (its highest), `weight_decay`, `layer`, `params` and `names`.

        Raises:
            UserError: rates per layer are asked for, and the network does not number its layers.
        """
        lr = self.scaled_lr(global_batch)
        if self.layer_decay is None:
            return [{**group, "lr": lr} for group in parameter_groups(network, self.weight_decay)]
        number: Callable[[str], int] | None = getattr(network, "layer_of", None)
        if number is None:
            raise UserError(f"optimizer.layer_decay: a {type(network).__name__} does not number its layers; set it to null")
        groups = parameter_groups(network, self.weight_decay, number)
        last = max(group["layer"] for group in groups)
        return [{**group, "lr": lr * self.layer_decay ** (last - group["layer"])} for group in groups]

    def build(self, network: nn.Module, global_batch: int, fused: bool) -> torch.optim.AdamW:
        """The optimizer of a network's parameters; fused is one kernel for all of them."""
        kept = ("params", "lr", "weight_decay")
        groups = [{key: group[key] for key in kept} for group in self.groups(network, global_batch)]
        betas = (self.betas[0], self.betas[1])
        return torch.optim.AdamW(groups, lr=self.scaled_lr(global_batch), betas=betas, eps=self.eps, fused=fused)


def parameter_groups(
    network: nn.Module, weight_decay: float, layer_of: Callable[[str], int] | None = None
) -> list[dict[str, Any]]:
    """Groups of parameters that decay, and that do not (one axis, biases, bias tables, V2's bias MLP and logit scale).

    Frozen ones are among them: without a gradient they stay as they are, and may thaw later.

    Args:
        network: whose parameters.
        weight_decay: of those that decay.
        layer_of: number of the layer that a parameter of this name belongs to; None for one layer.

    Returns:
        Per layer, in rising order, two groups, first the decayed one: `params`, `names`, `weight_decay`, `layer`. With layers,
        groups without parameters are left out.
    """
    names: dict[tuple[int, bool], list[str]] = {} if layer_of else {(0, False): [], (0, True): []}
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        exempt = parameter.ndim <= 1 or name.endswith(".bias") or any(part in name for part in NEVER_DECAYED)
        names.setdefault((layer_of(name) if layer_of else 0, exempt), []).append(name)
    return [
        {
            "params": [parameters[name] for name in names[layer, exempt]],
            "names": names[layer, exempt],
            "weight_decay": 0.0 if exempt else weight_decay,
            "layer": layer,
        }
        for layer, exempt in sorted(names)
    ]
