"""Window attention as a layer: the linear maps and the position bias around `swin_lab.ops.window_attention`.

References:
1. Swin Transformer, arXiv 2103.14030, section 3.2.
2. Swin Transformer V2, arXiv 2111.09883, sections 3.2 (scaled cosine attention) and 3.3 (continuous position bias).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_lab.ops import window_attention
from swin_lab.ops.geometry import Size, log_spaced_offsets
from swin_lab.ops.window_attention import attention_backend

MAX_LOGIT_SCALE = math.log(100)
"""Cosines are multiplied by 100 at most (ref. 2, section 3.2: a temperature above 0.01)."""
MAX_BIAS = 16.0
"""The bias of V2 lies between 0 and this (the paper's code)."""
BIAS_MLP_WIDTH = 512


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


class CosineWindowAttention(nn.Module):
    """The attention of V2: cosines of queries and keys times a learned scale, plus a bias that an MLP draws from offsets.

    Keys have no bias. Arguments as for `WindowAttention`, and

    Args:
        trained_window: the window, (M', N'), whose offsets the MLP has learned from; differs from `window` where a model
            goes on with larger windows.
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
        self.backend = backend
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.proj = nn.Linear(dim, dim)
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10)))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, BIAS_MLP_WIDTH), nn.ReLU(), nn.Linear(BIAS_MLP_WIDTH, num_heads, bias=False))
        self._kept: tuple[list[nn.Parameter], list[tuple[object, ...]], Tensor] | None = None

    def forward(self, x_BHWC: Tensor) -> Tensor:
        qkv_bias = None
        if self.q_bias is not None and self.v_bias is not None:
            qkv_bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        attended_BHWC = window_attention(
            F.linear(x_BHWC, self.qkv.weight, qkv_bias),
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
        """((2M-1)(2N-1), heads): the MLP's bias for every offset within a window.

        In evaluation, where no gradient is asked for, the table is kept until a weight of the MLP changes, moves to another
        device or becomes another type. A change that torch does not count (one through `.data`) is seen at the next call of
        `train` or `eval`.
        """
        weights = list(self.cpb_mlp.parameters())
        with_gradient = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if self.training or with_gradient or torch.compiler.is_compiling() or any(weight.is_inference() for weight in weights):
            return self._drawn_table()
        state = [(weight._version, weight.data_ptr(), weight.device, weight.dtype) for weight in weights]
        if self._kept is not None:
            seen_weights, seen_state, table = self._kept
            if seen_state == state and all(a is b for a, b in zip(seen_weights, weights, strict=True)):
                return table
        with torch.inference_mode(False), torch.no_grad():
            table = self._drawn_table()
        self._kept = (weights, [*state], table)
        return table

    def train(self, mode: bool = True) -> "CosineWindowAttention":
        self._kept = None
        return super().train(mode)

    def _drawn_table(self) -> Tensor:
        weight = self.proj.weight
        offsets = log_spaced_offsets(self.window, self.trained_window, weight.device).to(weight.dtype)
        device = weight.device.type if torch.amp.is_autocast_available(weight.device.type) else "cpu"
        with torch.autocast(device, enabled=False):  # a bias of up to 16 needs the digits
            return MAX_BIAS * self.cpb_mlp(offsets).sigmoid()
