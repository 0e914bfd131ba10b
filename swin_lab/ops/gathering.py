"""Moves tokens between the map and its windows by one gather each way, for backends that multiply matrices per window.

Padding aside, a map and its windows contain the same tokens in another order. One index therefore does at once what the plain
steps of windows.py do one after the other: cyclic shift, partition, and the separation of queries, keys, values and heads. The
gradient of such a permutation is the inverse permutation, again one gather, without atomic additions.

Windows are ordered by their kind (see `geometry.window_kinds`), so that all windows of a kind share one bias.

Shapes: B batch · H, W feature map · C channels · G windows per image · N = G*h · h heads · D = C/h · T tokens of a window ·
K keys, T or more
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_lab.ops import geometry
from swin_lab.ops.derivatives import explained, needs_plain_operations, plain_gradients, refuse_transforms
from swin_lab.ops.windows import SHORTEST, WindowLayout, position_bias, unit


@dataclass(frozen=True)
class WindowBias:
    """Contains what is added to the logits of windows: the position bias, and one mask per kind of window."""

    bias: Tensor
    """Position bias of every head, (h, T, K), in the dtype of the table."""
    kinds: tuple[geometry.WindowKind, ...]
    """Kinds of windows, in the order in which windows are gathered."""

    def expanded(self, dtype: torch.dtype, row_multiple: int = 1) -> Tensor:
        """Returns one bias per window and head, (1, G*h, T, K), whose rows begin at multiples of `row_multiple` elements."""
        K = self.bias.shape[2]
        per_kind = [F.pad(self.of_kind(kind), (0, -K % row_multiple)) for kind in self.kinds]
        parts = [b_hTK.to(dtype).expand(kind.count, *b_hTK.shape) for b_hTK, kind in zip(per_kind, self.kinds, strict=True)]
        return torch.cat(parts).flatten(0, 1)[None, :, :, :K]

    def of_kind(self, kind: geometry.WindowKind) -> Tensor:
        """Returns position bias plus mask, (h, T, K)."""
        if kind.mask is None:
            return self.bias
        T, K = self.bias.shape[1:]
        return self.bias + F.pad(kind.mask, (0, K - T))


GatheredFunction = Callable[[Tensor, Tensor, Tensor, WindowBias, float], Tensor]
"""Attention of all windows: q (B, G*h, T, D), k and v (B, G*h, K, D), bias, and scale of q k^T -> (B, G*h, T, D)."""


def attend_gathered(
    qkv_BHWC: Tensor,
    bias_table: Tensor,
    layout: WindowLayout,
    pad_value: Tensor | None,
    cosine_scale: Tensor | None,
    attend: GatheredFunction,
    key_multiple: int = 1,
) -> Tensor:
    """Gathers windows from a map, calls `attend` on all of them at once, and gathers the result back into image order.

    Args:
        qkv_BHWC: queries, keys and values side by side, (B, H, W, 3C).
        bias_table: relative position bias of the window in use, ((2M-1)(2N-1), h).
        layout: the windows.
        pad_value: the content of padded positions, (3C,). If None, zeros.
        cosine_scale: what the cosines of V2 are multiplied by, (h, 1, 1). If None, the scaled dot product of V1 is used.
        attend: the attention inside windows.
        key_multiple: the number of keys of a window is filled up to a multiple of this. Added keys have a bias of minus
            infinity: their weight is exactly zero.

    Returns:
        (B, H, W, C).

    Raises:
        UserError: a transform of `torch.func`, forward-mode differentiation or `torch.jit.trace` is active.
    """
    refuse_transforms(qkv_BHWC, bias_table, pad_value, cosine_scale)
    B, H, W, C3 = qkv_BHWC.shape
    qkv = geometry.pad_to_multiple(qkv_BHWC, layout.window, pad_value).contiguous()
    size, h = (qkv.shape[1], qkv.shape[2]), layout.num_heads
    T = layout.window[0] * layout.window[1]
    K = T + -T % key_multiple
    D = C3 // 3 // h
    here = (size, layout.window, layout.shift, h, K, qkv.device)

    rows_BRD = qkv.reshape(B, size[0] * size[1] * 3 * h, D)
    N = h * size[0] * size[1] // T
    q, k, v = _ToWindows.apply(rows_BRD, *geometry.rows_of_windows(*here), geometry.windows_of_rows(*here), N)

    bias_hTK = F.pad(position_bias(bias_table, layout.window)[0], (0, K - T), value=float("-inf"))
    bias = WindowBias(bias_hTK, geometry.window_kinds(size, layout.window, layout.shift, qkv.device))
    if cosine_scale is None:
        attended = attend(q, k, v, bias, D**-0.5)
    else:
        scale_N11 = cosine_scale.repeat(N // h, 1, 1)  # windows are the outer, heads the inner part of the axis
        q, k = _ScaledUnit.apply(q, scale_N11)[0], _ScaledUnit.apply(k, torch.ones_like(scale_N11))[0]
        attended = attend(q, k, v, bias, 1.0)

    there = (size, layout.window, layout.shift, h, qkv.device)
    out = _ToMap.apply(attended.reshape(B, N * T, D), geometry.outputs_of_map(*there), geometry.rows_of_outputs(*there))
    out = out.reshape(B, *size, C3 // 3)
    return out if size == (H, W) else out[:, :H, :W].contiguous()


class _ToWindows(torch.autograd.Function):
    """Gathers rows of a map (B, R, D) as queries (B, N, T, D), keys and values of windows; gradients are gathered back."""

    @staticmethod
    def forward(rows_BRD: Tensor, queries: Tensor, keys: Tensor, values: Tensor, inverse: Tensor, N: int) -> tuple[Tensor, ...]:
        B, _, D = rows_BRD.shape
        return tuple(rows_BRD.index_select(1, index).view(B, N, len(index) // N, D) for index in (queries, keys, values))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(inputs[4])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        if needs_plain_operations(gradients[0]):
            gradients = explained(gradients)
        B, N, _, D = gradients[0].shape
        rows_BRD = torch.cat([gradient.reshape(B, N * gradient.shape[2], D) for gradient in gradients], dim=1)
        return rows_BRD.index_select(1, inverse), None, None, None, None, None


class _ToMap(torch.autograd.Function):
    """Permutes rows (B, R, D) of windows into image order; the gradient is permuted the other way."""

    @staticmethod
    def forward(rows_BRD: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        return rows_BRD.index_select(1, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(1, inverse), None, None


class _ScaledUnit(torch.autograd.Function):
    """Scales vectors (B, N, K, D) to length one, times a factor (N, 1, 1); computes in fp32 at least, like `windows.unit`."""

    @staticmethod
    def forward(x_BNKD: Tensor, scale_N11: Tensor) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(x_BNKD.dtype, torch.float32)
        norm_BNK1 = torch.linalg.vector_norm(x_BNKD, dim=-1, keepdim=True, dtype=dtype).clamp_(min=SHORTEST)
        return (x_BNKD.to(dtype) * (scale_N11 / norm_BNK1)).to(x_BNKD.dtype), norm_BNK1

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, gradient_BNKD: Tensor, _: Any) -> tuple[Tensor, ...]:
        x, scale_N11, norm_BNK1 = ctx.saved_tensors
        if needs_plain_operations(gradient_BNKD):
            return plain_gradients(lambda x, scale: (unit(x) * scale).to(x.dtype), (x, scale_N11), gradient_BNKD)
        gradient, x = gradient_BNKD.to(norm_BNK1.dtype), x.to(norm_BNK1.dtype)
        # of x/|x| * s: (g - u (u g)) s / |x| with u = x/|x|; vectors that `SHORTEST` has stopped are divided by a constant
        along_BNK1 = (gradient * x).sum(dim=-1, keepdim=True) / norm_BNK1
        scale_gradient = along_BNK1.sum(dim=(0, 2), keepdim=True)[0]
        along_BNK1 = along_BNK1.masked_fill(norm_BNK1 <= SHORTEST, 0) / norm_BNK1
        x_gradient = torch.addcmul(gradient, x, along_BNK1, value=-1) * (scale_N11 / norm_BNK1)
        return x_gradient.to(gradient_BNKD.dtype), scale_gradient.to(scale_N11.dtype)
