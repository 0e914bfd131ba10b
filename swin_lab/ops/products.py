"""Window attention by batched matrix products with a backward pass of its own, for CPUs.

Autograd of the plain maths makes a new tensor for logits, biased logits and weights. Here, one buffer is filled with the bias,
multiplied into, and turned into weights in place; only the weights are kept for the backward pass.

Shapes: B batch · G windows per image · h heads · N = G*h · T tokens of a window · K keys, T or more · D channels of a head
"""

from functools import partial
from math import exp
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_lab.ops.derivatives import needs_plain_operations, plain_gradients
from swin_lab.ops.gathering import WindowBias, attend_gathered
from swin_lab.ops.reference import softmax_attention
from swin_lab.ops.windows import WindowLayout

LANES = 32
"""Numbers of 16 bits in a vector of AVX-512. In half precision, softmax takes twice the time for rows of other lengths."""

NEGLIGIBLE = -75.0
"""In masked windows, logits that are further than this below that of the token itself are raised to there. Their weights are at
most exp(-75) = 3e-33 and become 0. Otherwise, weights of masked tokens, about exp(-100), would be subnormal numbers, with which
processors compute slowly: the softmax of such rows takes seven times as long."""


def products(
    qkv_BHWC: Tensor, bias_table: Tensor, layout: WindowLayout, pad_value: Tensor | None, cosine_scale: Tensor | None
) -> Tensor:
    """Computes window attention by batched products; see `swin_lab.ops.window_attention` for the arguments."""
    T = layout.window[0] * layout.window[1]
    multiple = LANES if qkv_BHWC.element_size() == 2 and T > LANES else 1
    return attend_gathered(qkv_BHWC, bias_table, layout, pad_value, cosine_scale, _attend, multiple)


def _attend(q_BNTD: Tensor, k_BNKD: Tensor, v_BNKD: Tensor, bias: WindowBias, scale: float) -> Tensor:
    if torch.compiler.is_compiling():  # A compiler fuses plain maths, and derives its backward pass.
        return softmax_attention(q_BNTD, k_BNKD, v_BNKD, bias.expanded(q_BNTD.dtype), scale)
    counts = tuple(kind.count for kind in bias.kinds)
    biases = [bias.of_kind(kind).to(q_BNTD.dtype) for kind in bias.kinds]
    with _without_autocast(q_BNTD):
        out: Tensor = _Products.apply(q_BNTD, k_BNKD, v_BNKD, scale, counts, *biases)[0]
    return out


def _without_autocast(x: Tensor) -> torch.autocast:
    """Returns a context in which all products have the dtype of x: autocast casts those of `bmm`, and not of `baddbmm_`."""
    return torch.autocast(x.device.type, enabled=False)


class _Products(torch.autograd.Function):
    """softmax(scale q k^T + bias) v of all windows, see `gathering.GatheredFunction`; one bias (h, T, K) per kind of window."""

    @staticmethod
    def forward(
        q_BNTD: Tensor, k_BNKD: Tensor, v_BNKD: Tensor, scale: float, counts: tuple[int, ...], *biases: Tensor
    ) -> tuple[Tensor, Tensor]:
        B, N, T, D = q_BNTD.shape
        K, h = k_BNKD.shape[2], biases[0].shape[0]
        q, k, v = (x.flatten(0, 1) for x in (q_BNTD, k_BNKD, v_BNKD))
        weights = q.new_empty(B * N, T, K)
        per_kind = weights.view(B, N // h, h, T, K).split(counts, dim=1)
        for part, bias_hTK in zip(per_kind, biases, strict=True):
            part.copy_(bias_hTK.expand_as(part))
        weights.baddbmm_(q, k.transpose(1, 2), alpha=scale)
        for masked in per_kind[1:]:
            own = masked.diagonal(dim1=-2, dim2=-1)[..., None]  # a token is never masked for itself
            torch.maximum(masked, own + NEGLIGIBLE, out=masked)
        torch.softmax(weights, dim=-1, out=weights)
        for masked in per_kind[1:]:
            F.threshold(masked, 2 * exp(NEGLIGIBLE), 0.0, inplace=True)
            masked[..., T:].zero_()  # Added keys were raised, too; large logits in bfloat16 are too coarse for the threshold.
        return torch.bmm(weights, v).view(B, N, T, D), weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, ctx.scale, ctx.counts, *biases = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], q, k, v, *biases)

    @staticmethod
    def backward(ctx: Any, gradient_BNTD: Tensor, _: Any) -> tuple[Any, ...]:
        weights, q_BNTD, k_BNKD, v_BNKD, *biases = ctx.saved_tensors
        if needs_plain_operations(gradient_BNTD):
            with _without_autocast(q_BNTD):
                plain = partial(_plain_attention, ctx.scale, ctx.counts)
                q_gradient, k_gradient, v_gradient, *biases = plain_gradients(
                    plain, (q_BNTD, k_BNKD, v_BNKD, *biases), gradient_BNTD
                )
            return q_gradient, k_gradient, v_gradient, None, None, *biases
        q, k, v, gradient = (x.flatten(0, 1) for x in (q_BNTD, k_BNKD, v_BNKD, gradient_BNTD.contiguous()))
        with _without_autocast(q):
            v_gradient = torch.bmm(weights.transpose(1, 2), gradient)
            logits_gradient = torch.bmm(gradient, v.transpose(1, 2))
            logits_gradient = torch.ops.aten._softmax_backward_data(logits_gradient, weights, -1, weights.dtype)
            q_gradient = torch.empty_like(q).baddbmm_(logits_gradient, k, beta=0, alpha=ctx.scale)
            k_gradient = torch.empty_like(k).baddbmm_(logits_gradient.transpose(1, 2), q, beta=0, alpha=ctx.scale)
        (B, N, T, _), K, G = q_BNTD.shape, k_BNKD.shape[2], sum(ctx.counts)
        per_kind = logits_gradient.view(B, G, N // G, T, K).split(ctx.counts, dim=1)
        biases = [part.sum((0, 1)) for part in per_kind]
        return q_gradient.view_as(q_BNTD), k_gradient.view_as(k_BNKD), v_gradient.view_as(v_BNKD), None, None, *biases


def _plain_attention(scale: float, counts: tuple[int, ...], q: Tensor, k: Tensor, v: Tensor, *biases: Tensor) -> Tensor:
    """Computes what `_Products` computes, up to rounding, by operations that torch differentiates."""
    per_window = [b_hTK.expand(count, *b_hTK.shape) for count, b_hTK in zip(counts, biases, strict=True)]
    return softmax_attention(q, k, v, torch.cat(per_window).flatten(0, 1), scale)
