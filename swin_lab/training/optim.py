"""Optimizers as recipes specify them: a learning rate at a reference batch size, weight decay by group, layer-wise decay.

References: arXiv 2103.14030, section 4.1 and A2.1; the lists of parameters without weight decay are those of
github.com/microsoft/Swin-Transformer at f82860b (optimizer.py and the models' no_weight_decay lists); layer-wise decay is that
of its optimizer.py for SimMIM fine-tuning (arXiv 2111.09886, appendix).
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import sqrt
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Le
from torch import nn
from torch.optim import Optimizer

from swin_lab.errors import UserError
from swin_lab.validation import NonNegativeFloat, PositiveInt, check_fields

WITHOUT_WEIGHT_DECAY = ("relative_position_bias_table", "cpb_mlp", "logit_scale", "mask_token")
"""Parts of the names of parameters that have two or more axes and still no weight decay."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Contains an optimizer class with the settings of a recipe.

    Args:
        create: builds the optimizer for parameter groups: `create(groups, lr=...)`, such as a partial of torch.optim.AdamW.

    Raises:
        UserError: a value is invalid, or the optimizer refuses its own settings.
    """

    create: Callable[..., Optimizer]
    lr: NonNegativeFloat
    """Peak learning rate at the reference batch size."""
    reference_batch: PositiveInt
    """Global batch size for which `lr` is given."""
    lr_scaling: Literal["linear", "sqrt", "none"]
    """How the learning rate scales with the global batch size."""
    weight_decay: NonNegativeFloat
    """Weight decay of weights with two or more axes; biases, norms and bias tables have none."""
    layer_decay: Annotated[float, Gt(0), Le(1)] | None = None
    """Learning rate of a layer divided by that of the layer after it, from the head down. If None, all layers have the same."""

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.")
        name = _unwrapped(self.create).__name__
        if self.weight_decay and "weight_decay" not in inspect.signature(_unwrapped(self.create)).parameters:
            raise UserError(f"optimizer.weight_decay={self.weight_decay}: {name} has no weight decay; set it to 0")
        groups = [{"params": [nn.Parameter(torch.zeros(1, device="cpu"))], "weight_decay": self.weight_decay} for _ in range(2)]
        try:
            self.create(groups, lr=self.lr)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"optimizer: {name} refuses its settings: {str(error).splitlines()[0]}") from error

    def scaled_lr(self, global_batch: int) -> float:
        """Returns the peak learning rate of a run with this global batch size.

        Raises:
            UserError: it is too large for float32.
        """
        ratio = global_batch / self.reference_batch
        scaled = self.lr * {"linear": ratio, "sqrt": sqrt(ratio), "none": 1.0}[self.lr_scaling]
        if scaled > torch.finfo(torch.float32).max:
            raise UserError(f"optimizer.lr={self.lr} at global_batch={global_batch} is too large for float32; lower it")
        return scaled

    def groups(self, network: nn.Module, global_batch: int) -> list[dict[str, Any]]:
        """Returns the parameter groups of a network, each with its peak `lr`, `weight_decay`, `layer`, `params` and `names`.

        Raises:
            UserError: layer-wise decay is requested, and the network does not number its layers.
        """
        lr = self.scaled_lr(global_batch)
        if self.layer_decay is None:
            return [{**group, "lr": lr} for group in parameter_groups(network, self.weight_decay)]
        layer_of: Callable[[str], int] | None = getattr(network, "layer_of", None)
        if layer_of is None:
            raise UserError(
                f"optimizer.layer_decay={self.layer_decay}: a {type(network).__name__} has no method layer_of(name), "
                "the layer of a parameter; set optimizer.layer_decay=null"
            )
        groups = parameter_groups(network, self.weight_decay, layer_of)
        last = max(group["layer"] for group in groups)
        return [{**group, "lr": lr * self.layer_decay ** (last - group["layer"])} for group in groups]

    def build(self, network: nn.Module, global_batch: int, allow_fused: bool) -> Optimizer:
        """Returns the optimizer of a network's parameters.

        Args:
            network: the trained network.
            global_batch: images per optimizer update over all devices.
            allow_fused: whether a fused kernel may update the parameters, if the optimizer has one and does not set it itself.
        """
        keys = ("params", "lr", "weight_decay")
        groups = [{key: group[key] for key in keys} for group in self.groups(network, global_batch)]
        fused = {"fused": allow_fused} if _chooses_fused(self.create) else {}
        return self.create(groups, lr=self.scaled_lr(global_batch), **fused)


RECIPE_KEYS = frozenset(field.name for field in fields(OptimizerConfig)) - {"create"}
"""Keys of an `optimizer` node that belong to the recipe; `lr` and `weight_decay` reach the optimizer through its groups."""


def _unwrapped(create: Callable[..., Optimizer]) -> Any:
    """Returns the class behind a partial."""
    return getattr(create, "func", create)


def _chooses_fused(create: Callable[..., Optimizer]) -> bool:
    """Returns whether an optimizer has a fused implementation that is neither chosen nor excluded by its settings."""
    settings = getattr(create, "keywords", {})
    has_fused = "fused" in inspect.signature(_unwrapped(create)).parameters
    return has_fused and not {"fused", "foreach", "capturable", "differentiable"} & {key for key in settings if settings[key]}


def parameter_groups(
    network: nn.Module, weight_decay: float, layer_of: Callable[[str], int] | None = None
) -> list[dict[str, Any]]:
    """Returns groups with weight decay, and without (one axis, biases, bias tables, V2's bias MLP and logit scale, mask token).

    Frozen parameters are included: without a gradient they do not change, and they may be unfrozen later.

    Args:
        network: the trained network.
        weight_decay: weight decay of the groups that have it.
        layer_of: returns the number of the layer that a parameter of this name belongs to. If None, there is one layer.

    Returns:
        Two groups per layer, in increasing order, the one with weight decay first: `params`, `names`, `weight_decay`, `layer`.
        With layers, groups without parameters are left out.
    """
    names: dict[tuple[int, bool], list[str]] = {} if layer_of else {(0, False): [], (0, True): []}
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        exempt = parameter.ndim <= 1 or name.endswith(".bias") or any(part in name for part in WITHOUT_WEIGHT_DECAY)
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
