"""Window attention as a layer: adds the linear maps and the position bias to `swin_lab.ops.window_attention`.

References:
1. Swin Transformer, arXiv 2103.14030, section 3.2.
2. Swin Transformer V2, arXiv 2111.09883, sections 3.2 (scaled cosine attention) and 3.3 (continuous position bias).
"""

import math

import torch
from torch import Tensor, nn

from swin_lab.models.packing import ExternalBiasLinear
from swin_lab.ops import window_attention
from swin_lab.ops.geometry import Size, log_spaced_offsets
from swin_lab.ops.window_attention import attention_backend
from swin_lab.ops.windows import Backend

MAX_LOGIT_SCALE = math.log(100)
"""Cosines are multiplied by 100 at most (ref. 2, section 3.2: a temperature above 0.01)."""
MAX_BIAS = 16.0
"""Upper bound of the bias of V2, whose lower bound is 0 (the official code)."""
BIAS_MLP_WIDTH = 512
"""Hidden channels of the MLP that computes the bias of V2 (the official code)."""


class WindowAttention(nn.Module):
    """Projects to qkv, attends in (shifted) windows with relative position bias, and projects back: (S)W-MSA.

    Args:
        dim: C.
        num_heads: divides C.
        window: (M, N) in tokens.
        shifted: whether windows are shifted by half their size (SW-MSA).
        qkv_bias: whether queries, keys and values have a bias.
        backend: see `swin_lab.ops.window_attention`.

    Raises:
        UserError: the backend is unknown.
    """

    def __init__(self, dim: int, num_heads: int, window: Size, shifted: bool, qkv_bias: bool, backend: str) -> None:
        super().__init__()
        attention_backend(backend)  # An unknown name is refused at construction, not in the first forward pass.
        self.num_heads = num_heads
        self.window = window
        self.shift: Size = (window[0] // 2, window[1] // 2) if shifted else (0, 0)
        self.backend: str | Backend = backend
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window[0] - 1) * (2 * window[1] - 1), num_heads))
        nn.init.normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Maps a feature map to one of the same shape, (B, H, W, C)."""
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


class CosineWindowAttention(nn.Module):
    """Computes the attention of V2: scales the cosines of queries and keys, and adds a bias that an MLP computes from offsets.

    Keys have no bias.

    Args:
        dim: C.
        num_heads: divides C.
        window: (M, N) in tokens.
        shifted: whether windows are shifted by half their size (SW-MSA).
        qkv_bias: whether queries and values have a bias.
        backend: see `swin_lab.ops.window_attention`.
        trained_window: the window whose offsets the MLP was trained on, (M', N'). It differs from `window` if a model is
            fine-tuned with larger windows.

    Raises:
        UserError: the backend is unknown.
    """

    def __init__(
        self, dim: int, num_heads: int, window: Size, shifted: bool, qkv_bias: bool, backend: str, trained_window: Size
    ) -> None:
        super().__init__()
        attention_backend(backend)
        self.num_heads = num_heads
        self.window = window
        self.trained_window = trained_window
        self.shift: Size = (window[0] // 2, window[1] // 2) if shifted else (0, 0)
        self.backend: str | Backend = backend
        self.qkv = ExternalBiasLinear(dim, 3 * dim)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.proj = nn.Linear(dim, dim)
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10)))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, BIAS_MLP_WIDTH), nn.ReLU(), nn.Linear(BIAS_MLP_WIDTH, num_heads, bias=False))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Maps a feature map to one of the same shape, (B, H, W, C)."""
        qkv_bias = None
        if self.q_bias is not None and self.v_bias is not None:
            qkv_bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        attended_BHWC = window_attention(
            self.qkv(x_BHWC, qkv_bias),
            self.bias_table(),
            num_heads=self.num_heads,
            window=self.window,
            shift=self.shift,
            pad_value=qkv_bias,
            cosine_scale=self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp(),
            backend=self.backend,
        )
        return self.proj(attended_BHWC)

    def bias_table(self) -> Tensor:
        """Computes the MLP's bias for every offset within a window: ((2M-1)(2N-1), heads), in fp32 also under autocast.

        The table is computed in every forward pass, in evaluation too. That takes 1 % of a forward pass of swinv2_tiny at 256
        pixels and batch 1 on a CPU, and a tenth of that at batch 8; a cached table would have to notice every way in which a
        weight can change.
        """
        weight = self.proj.weight
        offsets = log_spaced_offsets(self.window, self.trained_window, weight.device).to(weight.dtype)
        # The meta device has no autocast; Dynamo of torch 2.11 cannot trace torch.amp.is_autocast_available.
        device = "cpu" if weight.is_meta else weight.device.type
        with torch.autocast(device, enabled=False):  # half precision is too coarse for a bias of up to 16
            return MAX_BIAS * self.cpb_mlp(offsets).sigmoid()
