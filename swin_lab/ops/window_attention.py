"""Multi-head self-attention inside (shifted) windows, on feature maps in image order.

References:
1. Swin Transformer, arXiv 2103.14030, section 3.2, equation 4: softmax(q k^T / sqrt(D) + bias) v within each window.
2. Swin Transformer V2, arXiv 2111.09883, section 3.2, equation 2: softmax(cos(q, k) * scale + bias) v.

Callers never see a window: padding, cyclic shift, partition, bias, mask and their inverses all live behind
`window_attention`, so that a fused kernel may replace every copy in here.

Shapes: B batch · H, W feature map · C channels · M, N window · T = M*N tokens · G windows per image · h heads · D = C/h
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.ops import geometry
from swin_lab.ops.geometry import Size


def window_attention(
    qkv_BHWC: Tensor,
    bias_table: Tensor,
    *,
    num_heads: int,
    window: Size,
    shift: Size = (0, 0),
    pad_value: Tensor | None = None,
    cosine_scale: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention within each window of a map, with relative position bias.

    Args:
        qkv_BHWC: queries, keys and values side by side, (B, H, W, 3C), each C in head-major order.
        bias_table: relative position bias, ((2M-1)(2N-1), heads), for the window asked for.
        num_heads: h, divides C.
        window: (M, N). On a map smaller than that along an axis, the map's size and the middle of the table are used.
        shift: how far windows are moved down and right, less than the window; (0, 0) for W-MSA, half a window for SW-MSA.
        pad_value: what a position added to fill the last window holds, (3C,): the bias of the linear layer that made
            `qkv_BHWC`, because a padding token is a zero before that layer. Zeros if None.
        cosine_scale: for the cosine attention of V2, what each head's cosines are multiplied with, (h, 1, 1); None for the
            scaled dot product of V1.
        backend: "reference" (plain maths, fp32 softmax: the specification), "sdpa" (torch's fused attention) or "auto".

    Returns:
        (B, H, W, C), in image order, in the dtype of `qkv_BHWC`.

    Raises:
        UserError: the backend has another name.
    """
    _, H, W, _ = qkv_BHWC.shape
    fitted, shift = geometry.fit_window((H, W), window, shift)
    qkv = geometry.pad_to_multiple(qkv_BHWC, fitted, pad_value)
    padded_size = (qkv.shape[1], qkv.shape[2])
    shifted = shift != (0, 0)
    if shifted:
        qkv = qkv.roll((-shift[0], -shift[1]), dims=(1, 2))

    bias = _bias(bias_table, fitted, window)  # (1, h, T, T)
    if shifted:
        bias = bias + geometry.shift_mask(padded_size, fitted, shift, bias.device)[:, None]  # (G, h, T, T)
    q, k, v = _split_heads(geometry.partition(qkv, fitted), num_heads)
    if cosine_scale is None:
        attended = attention_backend(backend)(q, k, v, bias, q.shape[-1] ** -0.5)
    else:
        q, k = _unit(q) * cosine_scale, _unit(k)
        attended = attention_backend(backend)(q, k, v, bias, 1.0)

    out = geometry.reverse_partition(attended, fitted, padded_size)
    if shifted:
        out = out.roll(shift, dims=(1, 2))
    return out[:, :H, :W].contiguous()


def attention_backend(name: str) -> Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]:
    """The function of that name: q, k, v, each (B, G, h, T, D), bias (1 or G, h, T, T) and scale of q k^T -> (B, G, T, C)."""
    if name not in BACKENDS:
        raise UserError(f"attention backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The specification: equation 4 of the paper spelled out, softmax in fp32."""
    logits = (q * scale) @ k.transpose(-2, -1) + bias  # (B, G, h, T, T)
    weights = logits.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
    return _join_heads(weights @ v)


def sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """torch's scaled_dot_product_attention, windows beside heads so that the bias is not copied for every image."""
    B, G, h, T, D = q.shape
    mask = bias.to(v.dtype).expand(G, h, T, T).reshape(1, G * h, T, T)
    q, k, v = (x.to(v.dtype).reshape(B, G * h, T, D) for x in (q, k, v))  # 4-D: with 5-D inputs the fused kernels step aside
    return _join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).reshape(B, G, h, T, D))


BACKENDS = {"auto": sdpa, "reference": reference, "sdpa": sdpa}


def _unit(x: Tensor) -> Tensor:
    """Vectors of length one along the last axis, in fp32 at least: the square of a small half-precision number is zero."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def _bias(table: Tensor, window: Size, table_window: Size) -> Tensor:
    """(rows, h) -> (1, h, T, T): the bias of every pair of tokens."""
    index = geometry.relative_position_index(window, table_window, table.device)
    T = index.shape[0]
    return table[index.flatten()].reshape(T, T, -1).permute(2, 0, 1)[None]


def _split_heads(qkv_BGTC: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, G, T, 3C) -> q, k, v, each (B, G, h, T, D)."""
    B, G, T, C3 = qkv_BGTC.shape
    q, k, v = qkv_BGTC.reshape(B, G, T, 3, num_heads, C3 // 3 // num_heads).permute(3, 0, 1, 4, 2, 5)
    return q, k, v


def _join_heads(x: Tensor) -> Tensor:
    """(B, G, h, T, D) -> (B, G, T, C)."""
    return x.transpose(2, 3).flatten(3)
