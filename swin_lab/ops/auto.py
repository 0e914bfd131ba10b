"""Chooses the backend that was measured to be the fastest for the device, the dtype, and training or inference."""

import torch
from torch import Tensor

from swin_lab.ops.derivatives import is_transformed
from swin_lab.ops.geometry import Size
from swin_lab.ops.products import products
from swin_lab.ops.reference import reference
from swin_lab.ops.sdpa import sdpa
from swin_lab.ops.triton_attention import triton
from swin_lab.ops.triton_support import supports
from swin_lab.ops.windows import Backend, WindowLayout

SMALL = 64
"""Tokens of the largest windows in which products on a CPU and the Triton kernels on a GPU were measured to beat SDPA.

On a CPU, SDPA is faster in larger windows because it does not write their logits to memory.
"""


def auto(
    qkv_BHWC: Tensor, bias_table: Tensor, layout: WindowLayout, pad_value: Tensor | None, cosine_scale: Tensor | None
) -> Tensor:
    """Computes window attention by the fastest backend; see `swin_lab.ops.window_attention` for the arguments.

    Transforms of `torch.func`, forward-mode differentiation and `torch.jit.trace` take the reference, the only backend that
    they understand; everything else takes that of `fastest`.
    """
    inputs = (qkv_BHWC, bias_table, pad_value, cosine_scale)
    if is_transformed(*inputs):
        return reference(qkv_BHWC, bias_table, layout, pad_value, cosine_scale)
    trains = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    head_dim = qkv_BHWC.shape[-1] // 3 // layout.num_heads
    chosen = fastest(qkv_BHWC.device.type, qkv_BHWC.dtype, layout.window, head_dim, trains=trains)
    return chosen(qkv_BHWC, bias_table, layout, pad_value, cosine_scale)


def fastest(device: str, dtype: torch.dtype, window: Size, head_dim: int, *, trains: bool) -> Backend:
    """Returns the fastest backend. docs/performance.md contains the figures.

    On a CPU, training takes products, and so does inference in half precision in windows of at most `SMALL` tokens. On an
    NVIDIA GPU, half precision in such windows takes the Triton kernels, if they support the heads: on one H200 they make
    Swin-T 1.45 times as fast in inference and 1.38 times in training. Larger windows and fp32 have not been measured on a GPU;
    they take SDPA, as does everything else.

    Args:
        device: type of the device, such as cpu or cuda.
        dtype: of queries, keys and values.
        window: (M, N).
        head_dim: channels of a head.
        trains: whether gradients are needed. torch's fused attention has no kernel for a bias that needs one on a CPU.
    """
    small_and_half = dtype.itemsize == 2 and window[0] * window[1] <= SMALL
    if device == "cpu":
        # Compiled, SDPA is 1.5 times as fast as products.
        return products if trains or (small_and_half and not torch.compiler.is_compiling()) else sdpa
    return triton if small_and_half and supports(device, dtype, head_dim, window) else sdpa
