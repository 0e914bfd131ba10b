"""What the Triton kernels of window attention support, and the errors of everything else. This file needs no Triton."""

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.ops.geometry import Size
from swin_lab.ops.windows import WindowLayout

MIN_HEAD_DIM, MAX_HEAD_DIM = 16, 64
"""Channels of a head that the kernels support."""
MAX_WINDOW_SIDE = 24
"""The largest side of a window that the kernels support."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Dtypes of queries, keys and values that the kernels support."""

MAX_TILE = 64
"""The largest number of tokens of a window that is one tile; larger windows take several tiles of that size."""

INSTALLED = find_spec("triton") is not None
"""Whether the package can be imported; it is not imported here."""

OTHERS = "attention_backend=sdpa or attention_backend=reference"


def check(qkv_BHWC: Tensor, layout: WindowLayout) -> None:
    """Refuses maps that the kernels do not support on any device.

    Raises:
        UserError: the heads, the windows or the dtype.
    """
    check_shapes(qkv_BHWC.shape[-1] // 3 // layout.num_heads, layout.window)
    if qkv_BHWC.dtype not in DTYPES:
        raise UserError(
            f"attention_backend=triton supports bfloat16, float16 and float32, not {_name(qkv_BHWC.dtype)}; use {OTHERS}"
        )


def supports(device: str, dtype: torch.dtype, head_dim: int, window: Size) -> bool:
    """Returns whether the kernels run on this machine's devices of that type, which only NVIDIA GPUs are, and support the rest.

    Args:
        device: type of the device, such as "cuda".
        dtype: of queries, keys and values.
        head_dim: channels of a head.
        window: (M, N).
    """
    return (
        device == "cuda"
        and torch.version.cuda is not None
        and INSTALLED
        and dtype in DTYPES
        and MIN_HEAD_DIM <= head_dim <= MAX_HEAD_DIM
        and max(window) <= MAX_WINDOW_SIDE
    )


def check_shapes(head_dim: int, window: Size) -> None:
    """Refuses heads and windows that the kernels do not support.

    Args:
        head_dim: channels of a head.
        window: (M, N).

    Raises:
        UserError: one of them is too large or too small.
    """
    if not MIN_HEAD_DIM <= head_dim <= MAX_HEAD_DIM:
        raise UserError(
            f"attention_backend=triton supports heads of {MIN_HEAD_DIM} to {MAX_HEAD_DIM} channels, not {head_dim}; "
            f"change num_heads, or use {OTHERS}"
        )
    if max(window) > MAX_WINDOW_SIDE:
        raise UserError(
            f"attention_backend=triton supports windows of up to {MAX_WINDOW_SIDE} tokens along a side, "
            f"not {window[0]}x{window[1]}; use {OTHERS}"
        )


def check_device(device: str) -> None:
    """Refuses to run without Triton, and on devices for which Triton compiles nothing here.

    Args:
        device: type of the device, such as "cuda".

    Raises:
        UserError: the kernels cannot run here.
    """
    if not INSTALLED:
        raise UserError(f"attention_backend=triton needs the package triton (Linux, pip install triton); use {OTHERS}")
    if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise UserError(
            f"attention_backend=triton needs an NVIDIA GPU, but the images are on the device {device!r}; use {OTHERS}\n"
            "(TRITON_INTERPRET=1 in the environment runs it in Triton's interpreter, which is slow and meant for tests)"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
