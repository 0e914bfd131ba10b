"""Where the autograd functions of this package stop: transforms of `torch.func`, traces, and gradients of gradients.

The functions compute first-order gradients in the fastest way that was measured. Gradients that are differentiated again
(`create_graph=True`) and batches of gradients (`is_grads_batched=True`) come from plain operations instead, which torch
differentiates itself.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from swin_lab.errors import UserError


def torch_func_is_active() -> bool:
    """Returns whether a transform of `torch.func` is active, for which torch has no public function."""
    return torch._C._are_functorch_transforms_active()


# As torch.compiler.assume_constant_result does, whose call imports the compiler. Otherwise, graphs would contain each call.
torch_func_is_active._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_transformed(*tensors: Tensor | None) -> bool:
    """Returns whether torch.func, forward-mode differentiation or torch.jit.trace is active: they need plain operations."""
    if torch_func_is_active() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return True
    if torch.compiler.is_compiling():
        return False
    return any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def refuse_transforms(*tensors: Tensor | None) -> None:
    """Raises UserError where `is_transformed` is true."""
    if is_transformed(*tensors):
        raise UserError(
            "this attention backend has no rules for torch.func, forward-mode differentiation and torch.jit.trace; "
            "set model.attention_backend=reference, or auto, which takes it there"
        )


def needs_plain_operations(gradient: Tensor) -> bool:
    """Returns, in a backward pass, whether the gradients it computes are differentiated again or are a batch of gradients."""
    if torch.compiler.is_compiling():
        return False
    batch = torch_func_is_active() or torch._C._functorch.is_legacy_batchedtensor(gradient)
    return torch.is_grad_enabled() or batch


def plain_gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], gradient: Tensor) -> tuple[Tensor, ...]:
    """Returns the gradients of `inputs` from that of `function(*inputs)`, by operations that can be differentiated again."""
    gradients: tuple[Tensor, ...] = torch.func.vjp(function, *inputs)[1](gradient)
    return gradients


def explained(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns gradients; if they come from a fused kernel without a second derivative, differentiating them says what to do."""
    return tuple(_Explain.apply(g) if g.grad_fn and g.grad_fn.name().endswith("NotImplemented") else g for g in gradients)


class _Explain(torch.autograd.Function):
    """Returns its input, whose gradient is refused."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise UserError("torch's fused attention cannot be differentiated twice; set model.attention_backend=reference")
