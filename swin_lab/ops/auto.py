"""Chooses the backend that was measured to be the fastest for the device, the dtype, and training or inference."""

import torch
from torch import Tensor

from swin_lab.ops.derivatives import is_transformed
from swin_lab.ops.products import products
from swin_lab.ops.reference import reference
from swin_lab.ops.sdpa import sdpa
from swin_lab.ops.triton_attention import triton
from swin_lab.ops.triton_support import supports
from swin_lab.ops.windows import Backend, WindowLayout

MAX_TOKENS = 64
"""Larger windows are faster by SDPA in inference, because it does not write their logits to memory."""

TRITON_IS_FASTER = False
"""Whether the Triton kernels are chosen where they are supported. They have not been measured on a GPU yet."""


def auto(
    qkv_BHWC: Tensor, bias_table: Tensor, layout: WindowLayout, pad_value: Tensor | None, cosine_scale: Tensor | None
) -> Tensor:
    """Computes window attention by the fastest backend; see `swin_lab.ops.window_attention` for the arguments.

    On a CPU, training takes products, and so does inference in half precision in windows of at most 64 tokens. No backend has
    been measured on a GPU yet, where SDPA is used. Transforms of `torch.func`, forward-mode differentiation and
    `torch.jit.trace` take the reference, the only backend that they understand. docs/performance.md contains the figures.
    """
    inputs = (qkv_BHWC, bias_table, pad_value, cosine_scale)
    if is_transformed(*inputs):
        return reference(qkv_BHWC, bias_table, layout, pad_value, cosine_scale)
    if TRITON_IS_FASTER and supports(qkv_BHWC, layout):
        return triton(qkv_BHWC, bias_table, layout, pad_value, cosine_scale)
    trains = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    tokens = layout.window[0] * layout.window[1]
    half = qkv_BHWC.element_size() == 2 and not torch.compiler.is_compiling()  # compiled, SDPA is 1.5 times as fast
    chosen = fastest(qkv_BHWC.device.type, trains=trains, half=half, tokens=tokens)
    return chosen(qkv_BHWC, bias_table, layout, pad_value, cosine_scale)


def fastest(device: str, *, trains: bool, half: bool = False, tokens: int = 1) -> Backend:
    """Returns the fastest backend.

    Args:
        device: type of the device, such as cpu or cuda.
        trains: whether gradients are needed. torch's fused attention has no kernel for a bias that needs one on a CPU.
        half: whether queries, keys and values have 16 bits.
        tokens: tokens of a window.
    """
    return products if device == "cpu" and (trains or (half and tokens <= MAX_TOKENS)) else sdpa
