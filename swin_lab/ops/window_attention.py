"""Multi-head self-attention inside (shifted) windows, on feature maps in image order.

References:
1. Swin Transformer, arXiv 2103.14030, section 3.2, equation 4: softmax(q k^T / sqrt(D) + bias) v within each window.
2. Swin Transformer V2, arXiv 2111.09883, section 3.2, equation 2: softmax(cos(q, k) * scale + bias) v.

Callers never see a window, and neither does this file: padding, cyclic shift, partition, bias and mask are internal to the
backends that need them, so that a fused kernel can avoid every copy. To add a backend, write one file with a function of type
`Backend` and name it in `BACKENDS`; the tests in tests/ops then compare it with the reference in values and gradients.

Shapes: B batch · H, W feature map · C channels · M, N window · h heads
"""

import torch
from torch import Tensor

from swin_lab.errors import UserError, did_you_mean
from swin_lab.ops.auto import auto, fastest
from swin_lab.ops.geometry import Size, crop_bias_table, fit_window
from swin_lab.ops.products import products
from swin_lab.ops.reference import reference
from swin_lab.ops.sdpa import sdpa
from swin_lab.ops.triton_attention import triton
from swin_lab.ops.windows import Backend, WindowLayout

BACKENDS: dict[str, Backend] = {
    "auto": auto,
    "products": products,
    "reference": reference,
    "sdpa": sdpa,
    "triton": triton,
}


def window_attention(
    qkv_BHWC: Tensor,
    bias_table: Tensor,
    *,
    num_heads: int,
    window: Size,
    shift: Size = (0, 0),
    pad_value: Tensor | None = None,
    cosine_scale: Tensor | None = None,
    backend: str | Backend = "auto",
) -> Tensor:
    """Computes attention within each window of a feature map, with relative position bias.

    Args:
        qkv_BHWC: queries, keys and values side by side, (B, H, W, 3C), each C in head-major order.
        bias_table: relative position bias, ((2M-1)(2N-1), h), for the given window.
        num_heads: h; divides C.
        window: (M, N). On a map smaller than that along an axis, the map's size and the middle of the table are used.
        shift: how far windows are moved down and right, less than the window: (0, 0) for W-MSA, half a window for SW-MSA.
        pad_value: the content of positions that are added to fill the last window, (3C,): the bias of the linear layer that
            made `qkv_BHWC`, because a padding token is a zero before that layer. If None, zeros.
        cosine_scale: for the cosine attention of V2, what the cosines of each head are multiplied by, (h, 1, 1). If None, the
            scaled dot product of V1 is used.
        backend: "reference" (plain maths, fp32 softmax: the specification), "sdpa" (torch's fused attention), "products"
            (batched matrix products with a backward pass of their own, for CPUs), "triton" (fused kernels for NVIDIA GPUs that
            copy nothing; see triton_support.py for their limits) or "auto", the fastest that has been measured on the device;
            or a function of type `Backend`.

    Returns:
        (B, H, W, C), in image order, in the dtype of `qkv_BHWC`.

    Raises:
        UserError: No backend has that name, or it does not support the device, the dtype, the heads or the window; or a
            transform of `torch.func`, forward-mode differentiation or `torch.jit.trace` is active, and the backend is neither
            "auto" nor "reference".
    """
    if torch.compiler.is_dynamo_compiling():  # Windows follow from the size of the map, which is a constant of a graph.
        for axis in (1, 2, 3):
            torch._dynamo.mark_static(qkv_BHWC, axis)
    _, H, W, _ = qkv_BHWC.shape
    window_in_use, shift_in_use = fit_window((H, W), window, shift)
    layout = WindowLayout(num_heads, window_in_use, shift_in_use)
    table = crop_bias_table(bias_table, window, window_in_use)
    return attention_backend(backend)(qkv_BHWC, table, layout, pad_value, cosine_scale)


def attention_backend(name: str | Backend) -> Backend:
    """Returns the backend of that name, and a function unchanged.

    Raises:
        UserError: No backend has that name.
    """
    if callable(name):
        return name
    if name not in BACKENDS:
        raise UserError(f"attention_backend={name!r} is unknown{did_you_mean(str(name), BACKENDS)}")
    return BACKENDS[name]


def training_backend(name: str, device: str, dtype: torch.dtype, window: Size, head_dim: int) -> str:
    """Returns the name of the backend that a training uses: of `auto`, the one it chooses.

    Args:
        name: of a backend.
        device: type of the device, such as "cuda".
        dtype: of queries, keys and values.
        window: (M, N).
        head_dim: channels of a head.
    """
    chosen = attention_backend(name)
    return (fastest(device, dtype, window, head_dim, trains=True) if chosen is auto else chosen).__name__
