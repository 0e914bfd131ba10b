"""Window attention through torch's fused `scaled_dot_product_attention`."""

import torch.nn.functional as F
from torch import Tensor

from swin_lab.ops.gathering import WindowBias, attend_gathered
from swin_lab.ops.windows import WindowLayout

ALIGNMENT = 8
"""Rows of the bias begin at multiples of this many elements; otherwise torch pads a copy of it in every call on a GPU."""


def sdpa(
    qkv_BHWC: Tensor, bias_table: Tensor, layout: WindowLayout, pad_value: Tensor | None, cosine_scale: Tensor | None
) -> Tensor:
    """Computes window attention with torch's fused kernels; see `swin_lab.ops.window_attention` for the arguments."""
    return attend_gathered(qkv_BHWC, bias_table, layout, pad_value, cosine_scale, _attend)


def _attend(q_BNTD: Tensor, k_BNTD: Tensor, v_BNTD: Tensor, bias: WindowBias, scale: float) -> Tensor:
    mask_1NTT = bias.expanded(v_BNTD.dtype, ALIGNMENT)
    return F.scaled_dot_product_attention(q_BNTD, k_BNTD, v_BNTD, attn_mask=mask_1NTT, scale=scale)
