"""Window attention as a layer: the linear maps and the bias table around `swin_lab.ops.window_attention`.

References: arXiv 2103.14030, section 3.2.
"""

import torch
from torch import Tensor, nn

from swin_lab.ops import window_attention
from swin_lab.ops.geometry import Size
from swin_lab.ops.window_attention import attention_backend


class WindowAttention(nn.Module):
    """(S)W-MSA: qkv, attention in (shifted) windows with relative position bias, projection.

    Args:
        dim: C.
        num_heads: divides C.
        window: (M, N) in tokens.
        shifted: whether windows move by half their size (SW-MSA).
        qkv_bias: whether queries, keys and values have a bias.
        backend: see `swin_lab.ops.window_attention`.
    """

    def __init__(self, dim: int, num_heads: int, window: Size, shifted: bool, qkv_bias: bool, backend: str) -> None:
        super().__init__()
        attention_backend(backend)  # raises if there is none of that name
        self.num_heads = num_heads
        self.window = window
        self.shift: Size = (window[0] // 2, window[1] // 2) if shifted else (0, 0)
        self.backend = backend
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window[0] - 1) * (2 * window[1] - 1), num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        attended_BHWC = window_attention(
            self.qkv(x_BHWC),
            self.relative_position_bias_table,
            num_heads=self.num_heads,
            window=self.window,
            shift=self.shift,
            pad_value=self.qkv.bias,
            backend=self.backend,
        )
        return self.proj(attended_BHWC)
