"""Window attention by fused Triton kernels, as operators of torch with gradients, which torch.compile keeps in one graph.

The kernels (triton_kernels.py, triton_launch.py) are imported when they first run: `import swin_lab` needs no Triton. The
operators are opaque to the compiler (`torch.library.custom_op`), so that the same code runs compiled on a GPU and, with
TRITON_INTERPRET=1, in Triton's interpreter on a CPU.

Shapes: B batch · H, W feature map · C channels · h heads · M, N window · T = M*N tokens
"""

from typing import Any

import torch
from torch import Tensor

from swin_lab.ops.derivatives import refuse_transforms
from swin_lab.ops.triton_support import MAX_TILE, check, check_device
from swin_lab.ops.windows import WindowLayout


def triton(
    qkv_BHWC: Tensor, bias_table: Tensor, layout: WindowLayout, pad_value: Tensor | None, cosine_scale: Tensor | None
) -> Tensor:
    """Computes window attention with one fused kernel; see `swin_lab.ops.window_attention` for the arguments.

    Matrix products accumulate in fp32. Those of fp32 inputs are exact in fp32 unless torch allows TF32 for matrix products
    (`torch.set_float32_matmul_precision("high")`). Two runs on one kind of device give the same bits.

    Raises:
        UserError: the kernels cannot run here, or do not support the shapes or the dtype; or a transform of `torch.func`,
            forward-mode differentiation or `torch.jit.trace` is active.
    """
    refuse_transforms(qkv_BHWC, bias_table, pad_value, cosine_scale)
    check(qkv_BHWC, layout)
    (M, N), (down, right) = layout.window, layout.shift
    out, _ = _forward(qkv_BHWC, bias_table, pad_value, cosine_scale, layout.num_heads, M, N, down, right)
    return out


@torch.library.custom_op("swin_lab::window_attention", mutates_args=())
def _forward(
    qkv: Tensor,
    bias_table: Tensor,
    pad_value: Tensor | None,
    cosine_scale: Tensor | None,
    heads: int,
    M: int,
    N: int,
    down: int,
    right: int,
) -> tuple[Tensor, Tensor]:
    """Returns the output, (B, H, W, C), and what the backward pass of large windows needs, (windows, h, T) or empty."""
    check_device(qkv.device.type)
    from swin_lab.ops.triton_launch import forward

    return forward(qkv, bias_table, WindowLayout(heads, (M, N), (down, right)), pad_value, cosine_scale)


@_forward.register_fake
def _(
    qkv: Tensor,
    bias_table: Tensor,
    pad_value: Tensor | None,
    cosine_scale: Tensor | None,
    heads: int,
    M: int,
    N: int,
    down: int,
    right: int,
) -> tuple[Tensor, Tensor]:
    B, H, W, C3 = qkv.shape
    windows = B * -(-H // M) * -(-W // N) if M * N > MAX_TILE else 0
    return qkv.new_empty((B, H, W, C3 // 3)), qkv.new_empty((windows, heads, M * N), dtype=torch.float32)


@torch.library.custom_op("swin_lab::window_attention_backward", mutates_args=())
def _backward(
    grad_out: Tensor,
    qkv: Tensor,
    bias_table: Tensor,
    pad_value: Tensor | None,
    cosine_scale: Tensor | None,
    out: Tensor,
    lse: Tensor,
    heads: int,
    M: int,
    N: int,
    down: int,
    right: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of qkv, bias table, padding value and scale; the last two are empty if there is none."""
    from swin_lab.ops.triton_launch import backward

    layout = WindowLayout(heads, (M, N), (down, right))
    return backward(grad_out, qkv, bias_table, layout, pad_value, cosine_scale, out, lse)


@_backward.register_fake
def _(
    grad_out: Tensor,
    qkv: Tensor,
    bias_table: Tensor,
    pad_value: Tensor | None,
    cosine_scale: Tensor | None,
    out: Tensor,
    lse: Tensor,
    heads: int,
    M: int,
    N: int,
    down: int,
    right: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = (qkv.new_empty(0) if x is None else x.new_empty(x.shape) for x in (qkv, bias_table, pad_value, cosine_scale))
    return tuple(grads)  # type: ignore[return-value]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, bias_table, pad_value, cosine_scale, *ctx.sizes = inputs
    ctx.save_for_backward(qkv, bias_table, pad_value, cosine_scale, *output)


def _gradients(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    qkv, bias_table, pad_value, cosine_scale, out, lse = ctx.saved_tensors
    gradients = _backward(grad_out, qkv, bias_table, pad_value, cosine_scale, out, lse, *ctx.sizes)
    return *(gradients[i] if ctx.needs_input_grad[i] else None for i in range(4)), None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_save)
