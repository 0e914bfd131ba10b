"""Packs the weights of linear layers once for an evaluation in bfloat16 on a CPU.

Under autocast, a linear layer casts its weights from float32 in every forward pass, and oneDNN then reorders them for its
matrix products. In an evaluation of swin_tiny at batch 4, both together take a quarter of the time (docs/performance.md).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACKED_DTYPE = torch.bfloat16
"""The precision for which weights are packed. In float32, packing brings 1 to 8 %, and sums have another order."""


class ExternalBiasLinear(nn.Linear):
    """Maps x (..., in_features) to x W^T plus a bias that is given with x: the layer itself has none.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        """Returns x W^T + bias, (..., out_features)."""
        return F.linear(input, self.weight, bias)


@contextmanager
def packed_weights(network: nn.Module) -> Iterator[None]:
    """Packs the weights of all linear layers of a network on a CPU; inside the context, they must not change.

    A layer is packed when it is first computed in bfloat16 without gradients, by autocast or because weights and inputs have
    this precision. The results are those of `torch.nn.functional.linear`. Weights, hooks and names of the state dict stay as
    they are. Packed weights take two bytes per weight in addition.

    Args:
        network: a network of any library. On another device, or on a CPU for which oneDNN does not support bfloat16, the
            context has no effect.
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    own_forward = (nn.Linear.forward, ExternalBiasLinear.forward)
    layers = [
        m for m in linear if type(m).forward in own_forward and "forward" not in vars(m) and m.weight.device.type == "cpu"
    ]
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        layers = []
    try:
        for layer in layers:
            layer.forward = _PackedForward(layer)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            del layer.forward


class _PackedForward:
    """Replaces the forward method of a linear layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.weight: Tensor | None = None

    def __call__(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        bias = self.layer.bias if bias is None else bias
        weight = self.layer.weight
        if torch.is_grad_enabled() or _computed_in(input, weight) != PACKED_DTYPE:
            return F.linear(input, weight, bias)
        if self.weight is None:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(PACKED_DTYPE), None)
        bias = None if bias is None else bias.to(PACKED_DTYPE)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(input.to(PACKED_DTYPE), self.weight, bias, "none", [], "")
        return out


def _computed_in(input: Tensor, weight: Tensor) -> torch.dtype | None:
    """Returns the dtype in which a linear layer is computed on a CPU, or None if its operands have different ones."""
    if torch.is_autocast_enabled("cpu") and torch.float64 not in (input.dtype, weight.dtype):
        return torch.get_autocast_dtype("cpu")
    return input.dtype if input.dtype == weight.dtype else None
