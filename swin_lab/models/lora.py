"""Low-rank adapters (LoRA): their settings, their injection by the package peft, and their sum with the weights.

Reference: Hu et al. 2021 (arXiv 2106.09685), section 4.1: a linear layer W x becomes W x + (alpha / rank) B A x. The matrices
A (rank, in) and B (out, rank) are trained, W is not. B starts at 0, so that training starts at the outputs of the weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, MinLen
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.models.config import SwinConfig, as_lists
from swin_lab.validation import Expected, Fraction, check_fields, shown

Layer = Literal["qkv", "proj", "fc1", "fc2"]
PATHS: Mapping[str, str] = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
"""Layer -> end of its name in every block."""

ADAPTER = "default"
"""The name that peft gives to an adapter."""
BASE, LORA_A, LORA_B = ".base_layer.", f".lora_A.{ADAPTER}.weight", f".lora_B.{ADAPTER}.weight"
"""What peft adds to the name of an adapted layer, for its own tensors and for both matrices."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Contains the settings of adapters, as conf/train.yaml explains them.

    Raises:
        UserError: a value is invalid.
    """

    rank: Annotated[int, Ge(1), Le(65_536), Expected("a positive integer")] | None = None
    """Rows of A and columns of B. If None, there are no adapters."""
    alpha: Annotated[float, Gt(0), Le(1e6), Expected("a positive number up to 1,000,000")] | None = None
    """If None, it is twice the rank."""
    dropout: Fraction = 0.0
    """Probability with which an input of A is set to 0 in training."""
    layers: Annotated[tuple[Layer, ...], MinLen(1), Expected(f"a list of some of {', '.join(PATHS)}")] = ("qkv", "proj")
    """Layers of every block that have an adapter."""
    norms: bool = False
    """Whether the norms are trained as well."""

    def __post_init__(self) -> None:
        check_fields(self, "model.lora.")
        if len(set(self.layers)) < len(self.layers):
            raise UserError(f"model.lora.layers={shown(self.layers)} names a layer twice")

    @property
    def scale(self) -> float:
        """Returns the factor of B A."""
        assert self.rank is not None
        return (2 * self.rank if self.alpha is None else self.alpha) / self.rank

    def check_network(self, network: SwinConfig) -> None:
        """Raises UserError if the network lacks a layer, or if the rank exceeds a side of an adapted weight."""
        assert self.rank is not None
        if network.token_mixer == "mlp" and {"qkv", "proj"} & {*self.layers}:
            raise UserError(f"model.lora.layers={shown(self.layers)}: Swin-MLP has no attention; choose [fc1, fc2]")
        hidden = int(network.embed_dim * network.mlp_ratio)
        sides = {"qkv": network.embed_dim, "proj": network.embed_dim}
        limit = min(sides.get(layer, min(network.embed_dim, hidden)) for layer in self.layers)
        if self.rank > limit:
            raise UserError(
                f"model.lora.rank={self.rank} is larger than the smallest adapted layer, of {limit} channels; "
                "8 and 16 are usual"
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns plain Python, from which the same settings can be built."""
        return {key: as_lists(value) for key, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"rank {self.rank}, alpha {self.scale * (self.rank or 0):g}, on {', '.join(self.layers)} of every block"


def check_installed() -> None:
    """Raises UserError if the package peft is missing."""
    if find_spec("peft") is None:
        raise UserError("model.lora needs the package peft: pip install 'swin-lab[lora]'")


def inject(network: nn.Module, config: LoraConfig) -> None:
    """Adds adapters to the layers of a network in place; only these, the head and, if wanted, the norms are trained.

    The names of tensors change as in peft: `attn.qkv.weight` becomes `attn.qkv.base_layer.weight`, beside
    `attn.qkv.lora_A.default.weight` and `attn.qkv.lora_B.default.weight`. The initial values depend on torch's seed.

    Args:
        network: a Swin Transformer with its weights.
        config: the settings, with a rank.

    Raises:
        UserError: peft is missing, or the network has no layer of a name.
    """
    check_installed()
    import peft

    targets: list[str] = []
    for layer in config.layers:
        names = [name for name, part in network.named_modules() if name.endswith(PATHS[layer]) and isinstance(part, nn.Linear)]
        if not names:
            raise UserError(f"model.lora.layers={shown(config.layers)}: a {type(network).__name__} has no layer {layer}")
        targets += names
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.scale * (config.rank or 0), lora_dropout=config.dropout, target_modules=targets
    )
    peft.inject_adapter_in_model(settings, network, ADAPTER)
    for layer in _adapted(network):
        layer.cast_input_dtype_enabled = False  # Autocast chooses the precision of A and B, as for every linear layer.
    trained = [getattr(network, "head", None)]
    trained += [part for part in network.modules() if config.norms and isinstance(part, nn.LayerNorm)]
    for part in trained:
        if isinstance(part, nn.Module):
            part.requires_grad_(True)


@contextmanager
def merged(network: nn.Module) -> Iterator[nn.Module]:
    """A context in which adapted layers compute with W + scale B A, as they do after `merged_tensors`; weights must not change.

    The tensors of the network and their names stay as they are.

    Yields:
        The linear layers that are computed in place of the adapted ones.
    """
    layers = _adapted(network)
    plain = nn.ModuleList(map(_plain, layers))
    try:
        for layer, linear in zip(layers, plain, strict=True):
            layer.forward = linear.__call__
        yield plain
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Returns the state dict of a network, with the adapters that `inject` has added to it summed up, if there are any."""
    given = getattr(network, "peft_config", {}).get(ADAPTER)
    tensors = network.state_dict()
    return tensors if given is None else merged_tensors(tensors, LoraConfig(rank=given.r, alpha=float(given.lora_alpha)))


@torch.no_grad()
def merged_tensors(tensors: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Returns the tensors of the network without adapters that has the same outputs.

    Args:
        tensors: those of a network with adapters, or of a part of it, by name; any prefix may precede the names.
        config: the settings of the adapters, with a rank.

    Raises:
        UserError: a matrix is missing, or has another shape than its layer and the rank demand.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, base, end = name.partition(BASE)
        if not base:
            if not name.endswith((LORA_A, LORA_B)):
                plain[name] = tensor
            continue
        if end == "weight":
            a_RI, b_OR = tensors.get(layer + LORA_A), tensors.get(layer + LORA_B)
            if a_RI is None or b_OR is None or tensor.ndim != 2:
                raise UserError(f"the adapter of {layer} is not complete")
            if a_RI.shape != (config.rank, tensor.shape[1]) or b_OR.shape != (tensor.shape[0], config.rank):
                raise UserError(
                    f"the adapter of {layer} has the shapes {list(a_RI.shape)} and {list(b_OR.shape)}, which do not fit "
                    f"rank {config.rank} and a weight of {list(tensor.shape)}"
                )
            tensor = _sum(tensor, a_RI, b_OR, config.scale)
        plain[f"{layer}.{end}"] = tensor
    return plain


def _sum(weight_OI: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
    """Returns W + scale B A in the precision of W, computed in float32 at least."""
    dtype = torch.promote_types(weight_OI.dtype, torch.float32)
    with torch.autocast(weight_OI.device.type, enabled=False):
        return (weight_OI.to(dtype) + (b_OR.to(dtype) @ a_RI.to(dtype)) * scale).to(weight_OI.dtype)


def _adapted(network: nn.Module) -> list[Any]:
    """Returns the layers with adapters, of a class of peft."""
    from peft.tuners.lora import LoraLayer

    return [part for part in network.modules() if isinstance(part, LoraLayer)]


@torch.no_grad()
def _plain(layer: Any) -> nn.Module:
    """Returns a copy of the layer under an adapter, with the sum of both."""
    linear: nn.Linear = deepcopy(layer.base_layer)
    matrices = (layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight)
    linear.weight.copy_(_sum(linear.weight, *matrices, layer.scaling[ADAPTER]))
    return linear
