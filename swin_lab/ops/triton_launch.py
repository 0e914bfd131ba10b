"""Launches the Triton kernels: chooses tiles, warps and programs, allocates results and reduces partial sums.

All choices are functions of shapes, dtype and the device's number of multiprocessors, and nothing is tuned at run time, so that
the order of sums and with it every bit of a result is the same in every run on one kind of device.

Shapes: B batch · H, W feature map · C channels · M, N window · T = M*N tokens · h heads · D = C/h · P programs per head
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from swin_lab.ops import triton_kernels as kernels
from swin_lab.ops import triton_tiled_backward as tiled
from swin_lab.ops.triton_support import MAX_TILE
from swin_lab.ops.windows import WindowLayout

WAVES = 2
"""How often every multiprocessor is filled with programs: more even out their ends, fewer read the bias less often."""
INTERPRETER_MULTIPROCESSORS = 1
"""Without a GPU, a few programs go through several windows each."""
REGISTERS = 65_536
"""Registers of a multiprocessor, from sm_80 to sm_100."""


@dataclass(frozen=True)
class Problem:
    """The sizes and pointers that all kernels of one call share."""

    qkv: Tensor
    table: Tensor
    """Transposed, (h, rows), fp32."""
    pad: Tensor
    """The content of padding, (3C,), or any tensor if there is none."""
    scale: Tensor
    """What cosines are multiplied by, (h,), or any tensor for V1."""
    layout: WindowLayout
    constants: dict[str, Any]
    """The compile-time arguments of the kernels."""

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the first arguments of the kernels."""
        return self.qkv, self.table, self.pad, self.scale

    @property
    def windows(self) -> int:
        """Returns the number of windows of the batch."""
        B, H, W, _ = self.qkv.shape
        M, N = self.layout.window
        return B * -(-H // M) * -(-W // N)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Returns the run-time arguments of the kernels: windows, H, W, heads."""
        _, H, W, _ = self.qkv.shape
        return self.windows, H, W, self.layout.num_heads

    @property
    def tokens(self) -> int:
        """Returns T."""
        return self.layout.window[0] * self.layout.window[1]

    def options(self, *, forward: bool) -> "Options":
        """Returns the options of the forward kernel or of the backward kernels."""
        size = self.constants
        return options(forward, self.qkv.dtype, size["BLOCK_T"], size["BLOCK_D"], size["COSINE"])

    @property
    def tiles(self) -> int:
        """Returns the number of tiles along the tokens of a window."""
        return -(-self.tokens // self.constants["BLOCK_T"])


def forward(
    qkv: Tensor, bias_table: Tensor, layout: WindowLayout, pad_value: Tensor | None, cosine_scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Computes the output, (B, H, W, C), and logarithms of sums of exponentials, (windows, h, T), empty for a single tile."""
    problem = _problem(qkv, bias_table, layout, pad_value, cosine_scale)
    B, H, W, C3 = qkv.shape
    out = qkv.new_empty((B, H, W, C3 // 3))
    lse = _fp32(problem, problem.windows if problem.tiles > 1 else 0, layout.num_heads, problem.tokens)
    programs = _programs(problem, problem.tiles, forward=True)
    _launch(kernels.forward_kernel, (programs * layout.num_heads, problem.tiles), problem, out, lse)
    return out, lse


def backward(
    grad_out: Tensor,
    qkv: Tensor,
    bias_table: Tensor,
    layout: WindowLayout,
    pad_value: Tensor | None,
    cosine_scale: Tensor | None,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Computes the gradients of qkv, bias table, padding value and scale; the last two are empty if there is none."""
    problem = _problem(qkv, bias_table, layout, pad_value, cosine_scale)
    grad_qkv = torch.empty_like(problem.qkv)
    run = _backward_of_one_tile if problem.tiles == 1 else _backward_of_tiles
    grad_bias, grad_pad, grad_scale = run(problem, grad_out.contiguous(), grad_qkv, out.contiguous(), lse)
    grad_table = _table_gradient(problem, grad_bias).to(bias_table.dtype)

    if pad_value is None:
        grad_pad_value = qkv.new_empty(0)
    else:
        grad_pad_value = torch.zeros_like(pad_value, memory_format=torch.contiguous_format)
        if problem.constants["PAD_VALUE"]:
            grad_pad_value.view(3, layout.num_heads, -1)[1:] = grad_pad.transpose(0, 1)  # padded queries have no output
    if cosine_scale is None:
        grad_cosine_scale = qkv.new_empty(0)
    else:
        grad_cosine_scale = grad_scale.reshape(cosine_scale.shape).to(cosine_scale.dtype)
    return grad_qkv, grad_table, grad_pad_value, grad_cosine_scale


def _problem(
    qkv: Tensor, bias_table: Tensor, layout: WindowLayout, pad_value: Tensor | None, cosine_scale: Tensor | None
) -> Problem:
    _, H, W, C3 = qkv.shape
    padded = bool(H % layout.window[0] or W % layout.window[1])
    qkv = qkv.contiguous()
    return Problem(
        qkv,
        bias_table.float().t().contiguous(),
        qkv if pad_value is None else pad_value.contiguous(),
        qkv if cosine_scale is None else cosine_scale.float().flatten().contiguous(),
        layout,
        constants(
            layout.window,
            layout.shift,
            C3 // 3 // layout.num_heads,
            cosine=cosine_scale is not None,
            pad_value=padded and pad_value is not None,
            tf32=torch.backends.cuda.matmul.fp32_precision == "tf32",
        ),
    )


def constants(
    window: tuple[int, int], shift: tuple[int, int], head_dim: int, *, cosine: bool, pad_value: bool, tf32: bool
) -> dict[str, Any]:
    """Returns the compile-time arguments of the kernels."""
    M, N = window
    return {
        "M": M,
        "N": N,
        "SHIFT_M": shift[0],
        "SHIFT_N": shift[1],
        "D": head_dim,
        "COSINE": cosine,
        "PAD_VALUE": pad_value,
        "BLOCK_T": min(MAX_TILE, max(16, triton.next_power_of_2(M * N))),
        "BLOCK_D": max(16, triton.next_power_of_2(head_dim)),
        "PRECISION": "tf32" if tf32 else "ieee",
    }


@dataclass(frozen=True)
class Options:
    """How a kernel is compiled and how many of its programs run on a multiprocessor at the same time."""

    num_warps: int
    num_stages: int
    """Stages of the software pipeline: with 2, the next window is read while the current one is computed."""
    resident: int


def options(forward: bool, dtype: torch.dtype, block_t: int, block_d: int, cosine: bool) -> Options:
    """Chooses what keeps values in registers, from what ptxas reports for sm_80 and sm_90; not measured on a GPU yet.

    For tiles of 64 tokens in half precision, the forward kernel takes 160 to 200 registers per thread with 4 warps, and the
    backward kernels 255, with 0 to 8 bytes spilled for V1 and heads of up to 32 channels. With 8 warps the others spill 0 to
    90 bytes instead of up to 300. Exact products in fp32 keep their operands in registers, hence more warps.
    """
    warps = block_t // 16
    if dtype == torch.float32:
        warps *= 2 if forward else 4
    elif not forward and (cosine or block_d > 32):
        warps *= 2
    registers = 168 if forward else 256
    stages = 1 if dtype == torch.float32 or (not forward and warps * 16 > block_t) else 2
    return Options(warps, stages, max(1, REGISTERS // (registers * 32 * warps)))


def _launch(kernel: Any, grid: tuple[int, ...], problem: Problem, *pointers: Tensor) -> None:
    """Launches a kernel, whose arguments are the inputs, its own pointers, the sizes and the constants."""
    chosen = problem.options(forward=kernel is kernels.forward_kernel)
    kernel[grid](
        *problem.inputs,
        *pointers,
        *problem.sizes,
        **problem.constants,
        num_warps=chosen.num_warps,
        num_stages=chosen.num_stages,
    )


def _programs(problem: Problem, tiles: int, *, forward: bool = False) -> int:
    """Returns how many programs share the windows of a head, so that the programs of a kernel run in `WAVES` rounds.

    Args:
        problem: the call.
        tiles: programs that share a window and head.
        forward: whether the kernel is that of the forward pass.
    """
    device = problem.qkv.device
    if device.type == "cuda":
        multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    else:
        multiprocessors = INTERPRETER_MULTIPROCESSORS
    wanted = WAVES * multiprocessors * problem.options(forward=forward).resident // (problem.layout.num_heads * tiles)
    return max(1, min(problem.windows, wanted))


def _fp32(problem: Problem, *shape: int) -> Tensor:
    return problem.qkv.new_empty(shape, dtype=torch.float32)


def _backward_of_one_tile(
    problem: Problem, grad_out: Tensor, grad_qkv: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of the bias, (h, side, side), of padded keys and values, (h, 2, D), and of the scale, (h,)."""
    P, h, side = _programs(problem, 1), problem.layout.num_heads, problem.constants["BLOCK_T"]
    grad_bias = _fp32(problem, P, h, side, side)
    grad_pad = _fp32(problem, P, h, 2, problem.constants["D"])
    grad_scale = _fp32(problem, P, h)
    _launch(kernels.backward_kernel, (P * h,), problem, grad_out, grad_qkv, grad_bias, grad_pad, grad_scale)
    return grad_bias.sum(0), grad_pad.sum(0), grad_scale.sum(0)


def _backward_of_tiles(
    problem: Problem, grad_out: Tensor, grad_qkv: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what `_backward_of_one_tile` returns, for windows of several tiles."""
    h, tiles, side = problem.layout.num_heads, problem.tiles, problem.tiles * problem.constants["BLOCK_T"]
    delta = torch.empty_like(lse)
    P = _programs(problem, tiles)
    grad_scale = _fp32(problem, tiles, P, h)
    grad_pad = _fp32(problem, tiles, P, h, 2, problem.constants["D"])
    saved = (lse, grad_out, delta)
    _launch(tiled.backward_queries_kernel, (P * h, tiles), problem, out, *saved, grad_qkv, grad_scale)
    _launch(tiled.backward_keys_kernel, (P * h, tiles), problem, *saved, grad_qkv, grad_pad)
    P = _programs(problem, tiles * tiles)
    grad_bias = _fp32(problem, P, h, side, side)
    _launch(tiled.backward_bias_kernel, (P * h, tiles, tiles), problem, *saved, grad_bias)
    return grad_bias.sum(0), grad_pad.sum((0, 1)), grad_scale.sum((0, 1))


def _table_gradient(problem: Problem, grad_bias: Tensor) -> Tensor:
    """Returns the gradient of the bias table, ((2M-1)(2N-1), h), from that of the bias of all pairs, (h, side, side)."""
    h, (M, N) = problem.layout.num_heads, problem.layout.window
    grad_table = _fp32(problem, (2 * M - 1) * (2 * N - 1), h)
    block = max(16, triton.next_power_of_2(problem.tokens))
    kernels.table_gradient_kernel[(grad_table.shape[0], h)](
        grad_bias, grad_table, h, grad_bias.shape[-1], M=M, N=N, BLOCK=block
    )
    return grad_table
