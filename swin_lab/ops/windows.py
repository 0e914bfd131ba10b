"""Functions for backends that work on windows: they pad, shift and partition the map, and reverse it afterwards.

Shapes: B batch · H, W feature map · C channels · M, N window · T = M*N tokens · G windows per image · h heads · D = C/h
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from swin_lab.ops import geometry
from swin_lab.ops.geometry import Size

SHORTEST = 1e-12
"""Shorter vectors are not scaled to length one."""


@dataclass(frozen=True)
class WindowLayout:
    """Describes how a feature map is divided into windows and heads.

    Row r of the map belongs to the windows in row floor((r - shift) / M), and columns follow the same rule. The map continues
    with padding at the bottom and right up to the next multiple of the window; rows above the first shifted window and rows
    below the last one form windows of their own, which attend to nothing else.
    """

    num_heads: int
    """h; divides the channels."""
    window: Size
    """(M, N), at most the size of the map."""
    shift: Size
    """How far the windows are moved down and right; 0 along an axis that a single window covers."""


Backend = Callable[[Tensor, Tensor, WindowLayout, Tensor | None, Tensor | None], Tensor]
"""(qkv_BHWC, bias_table, layout, pad_value, cosine_scale) -> (B, H, W, C).

The tensors are those of `swin_lab.ops.window_attention`. The layout has the window and shift in use on this map, and the bias
table has exactly the rows of that window.
"""

WindowFunction = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""Attention inside windows: q, k, v, each (B, G, h, T, D), bias (1 or G, h, T, T) and scale of q k^T -> (B, G, h, T, D)."""


def attend_in_windows(
    qkv_BHWC: Tensor,
    bias_table: Tensor,
    layout: WindowLayout,
    pad_value: Tensor | None,
    cosine_scale: Tensor | None,
    attend: WindowFunction,
) -> Tensor:
    """Partitions a map into windows, calls `attend` on all of them at once, and returns the result in image order.

    Args:
        qkv_BHWC: queries, keys and values side by side, (B, H, W, 3C).
        bias_table: relative position bias of the window in use, ((2M-1)(2N-1), h).
        layout: the windows.
        pad_value: the content of padded positions, (3C,). If None, zeros.
        cosine_scale: what the cosines of V2 are multiplied by, (h, 1, 1). If None, the scaled dot product of V1 is used.
        attend: the attention inside windows.

    Returns:
        (B, H, W, C).
    """
    _, H, W, _ = qkv_BHWC.shape
    window, shift = layout.window, layout.shift
    qkv = geometry.pad_to_multiple(qkv_BHWC, window, pad_value)
    padded_size = (qkv.shape[1], qkv.shape[2])
    shifted = shift != (0, 0)
    if shifted:
        qkv = qkv.roll((-shift[0], -shift[1]), dims=(1, 2))

    bias = position_bias(bias_table, window)  # (1, h, T, T)
    if shifted:
        bias = bias + geometry.shift_mask(padded_size, window, shift, bias.device)[:, None]  # (G, h, T, T)
    q, k, v = _split_heads(geometry.partition(qkv, window), layout.num_heads)
    if cosine_scale is None:
        attended = attend(q, k, v, bias, q.shape[-1] ** -0.5)
    else:
        attended = attend(unit(q) * cosine_scale, unit(k), v, bias, 1.0)

    out = geometry.reverse_partition(_join_heads(attended), window, padded_size)
    if shifted:
        out = out.roll(shift, dims=(1, 2))
    return out[:, :H, :W].contiguous()


def unit(x: Tensor) -> Tensor:
    """Scales vectors to length one along the last axis, in fp32 at least: the square of a small half-precision number is 0.

    Values and gradients are those of torch's `normalize`, whose second derivative is NaN for vectors of zeros.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    short = torch.linalg.vector_norm(x.detach(), dim=-1, keepdim=True) <= SHORTEST
    length = torch.linalg.vector_norm(x.masked_fill(short, 1), dim=-1, keepdim=True).masked_fill(short, SHORTEST)
    return x / length


def position_bias(table: Tensor, window: Size) -> Tensor:
    """Looks up the bias of every pair of tokens: (rows, h) -> (1, h, T, T)."""
    index = geometry.relative_position_index(window, table.device)
    T = index.shape[0]
    return table[index.flatten()].reshape(T, T, -1).permute(2, 0, 1)[None]


def _split_heads(qkv_BGTC: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Separates queries, keys and values: (B, G, T, 3C) -> q, k, v, each (B, G, h, T, D)."""
    B, G, T, C3 = qkv_BGTC.shape
    q, k, v = qkv_BGTC.reshape(B, G, T, 3, num_heads, C3 // 3 // num_heads).permute(3, 0, 1, 4, 2, 5)
    return q, k, v


def _join_heads(x: Tensor) -> Tensor:
    """Concatenates the heads: (B, G, h, T, D) -> (B, G, T, C)."""
    return x.transpose(2, 3).flatten(3)
