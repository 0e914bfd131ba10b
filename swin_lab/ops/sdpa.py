"""Window attention through torch's fused `scaled_dot_product_attention`."""

import torch.nn.functional as F
from torch import Tensor

from swin_lab.ops.windows import WindowLayout, attend_in_windows


def sdpa(
    qkv_BHWC: Tensor, bias_table: Tensor, layout: WindowLayout, pad_value: Tensor | None, cosine_scale: Tensor | None
) -> Tensor:
    """Computes window attention with torch's fused kernels; see `swin_lab.ops.window_attention` for the arguments."""
    return attend_in_windows(qkv_BHWC, bias_table, layout, pad_value, cosine_scale, _fused_attention)


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Joins windows and heads into one axis: images then share one bias, and inputs have the four axes of the fused kernels."""
    B, G, h, T, D = q.shape
    mask = bias.to(v.dtype).expand(G, h, T, T).reshape(1, G * h, T, T)
    q, k, v = (x.to(v.dtype).reshape(B, G * h, T, D) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).reshape(B, G, h, T, D)
