"""The specification of window attention, plain matrix products and softmax in fp32: every other backend must agree with it."""

import torch
from torch import Tensor

from swin_lab.ops.windows import WindowLayout, attend_in_windows


def reference(
    qkv_BHWC: Tensor, bias_table: Tensor, layout: WindowLayout, pad_value: Tensor | None, cosine_scale: Tensor | None
) -> Tensor:
    """Computes window attention as the papers write it; see `swin_lab.ops.window_attention` for the arguments."""
    return attend_in_windows(qkv_BHWC, bias_table, layout, pad_value, cosine_scale, softmax_attention)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Computes equation 4 of arXiv 2103.14030 in every window; see `swin_lab.ops.windows.WindowFunction` for the shapes."""
    return attention_weights(q, k, bias, scale).to(v.dtype) @ v


def attention_weights(q: Tensor, k: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Returns how much each query attends to each key of its window, (B, G, h, T, T) of fp32; every row sums to 1."""
    logits = (q * scale) @ k.transpose(-2, -1) + bias
    return logits.softmax(dim=-1, dtype=torch.float32)
