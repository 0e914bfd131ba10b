"""Triton kernels of the backward pass for windows of several tiles: one for queries, one for keys and values, one for the bias.

Their arguments are explained in triton_kernels.py. A program goes through the windows of one head for a fixed tile of queries,
of keys, or of both. Each kernel computes the softmax weights again from the saved sums of exponentials: a single kernel would
need the gradients of queries, of keys and of the bias, which no program can hold for all tiles of a window, and atomics.
"""

import triton
import triton.language as tl

from swin_lab.ops.triton_tiles import (
    add_mask,
    bias_tile,
    inverse_length,
    locate,
    normalise_backward,
    product,
    read,
    read_part,
    scale_of,
    similarities,
    unit_rows,
    write,
)


@triton.jit
def _tile(
    q, k, v, grad_out, q_inverse, k_inverse, lse, scale, bias, region_q, region_k,
    SHIFTED: tl.constexpr, COSINE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Returns similarities, softmax weights, from the saved sums of exponentials, and gradients of the weights."""
    similarity = similarities(q, k, q_inverse, k_inverse, COSINE, PRECISION)
    weights = tl.exp(add_mask(similarity * scale + bias, region_q, region_k, SHIFTED) - lse[:, None])
    return similarity, weights, product(grad_out, tl.trans(v), PRECISION)


@triton.jit
def backward_queries_kernel(
    qkv_ptr, table_ptr, pad_ptr, scale_ptr, out_ptr, lse_ptr, grad_out_ptr, delta_ptr, grad_qkv_ptr, grad_scale_ptr,
    windows, H, W, heads,
    M: tl.constexpr, N: tl.constexpr, SHIFT_M: tl.constexpr, SHIFT_N: tl.constexpr, D: tl.constexpr,
    COSINE: tl.constexpr, PAD_VALUE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of queries and `delta` for one tile of queries per window, and partial sums of that of the scale.

    The gradient of queries uses out * grad_out, with the rounded output, for the sum of weights times their gradients. The
    other kernels and the scale, whose gradient is a small difference of large sums, get the exact sum.

    Grid: (programs * heads, tiles of queries). The partial sums are (tiles of queries, programs, h).
    """
    T: tl.constexpr = M * N
    SHIFTED: tl.constexpr = SHIFT_M + SHIFT_N > 0
    head, C = tl.program_id(0) % heads, heads * D
    channel = head * D
    table = table_ptr + head * ((2 * M - 1) * (2 * N - 1))
    scale = scale_of(scale_ptr, head, D, COSINE)
    tq = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    grad_scale = tl.zeros((BLOCK_T,), tl.float32)
    for window in range(tl.program_id(0) // heads, windows, tl.num_programs(0) // heads):
        rows = (tl.cast(window, tl.int64) * heads + head) * T
        token_q, inside_q, region_q = locate(window, tq, H, W, M, N, SHIFT_M, SHIFT_N)
        q = read_part(qkv_ptr, pad_ptr, channel, token_q, inside_q, 3 * C, D, BLOCK_D, PAD_VALUE)
        grad_out = read(grad_out_ptr + channel, token_q, inside_q, C, D, BLOCK_D)
        out = read(out_ptr + channel, token_q, inside_q, C, D, BLOCK_D)
        delta_of_out = tl.sum(out.to(tl.float32) * grad_out.to(tl.float32), axis=1)
        lse = tl.load(lse_ptr + rows + tq, mask=tq < T, other=float("inf"))
        q_inverse = inverse_length(q, COSINE)
        delta = tl.zeros((BLOCK_T,), tl.float32)
        mean = tl.zeros((BLOCK_T,), tl.float32)
        grad_q = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        for start in range(0, T, BLOCK_T):
            tk = start + tl.arange(0, BLOCK_T)
            token_k, inside_k, region_k = locate(window, tk, H, W, M, N, SHIFT_M, SHIFT_N)
            k = read_part(qkv_ptr, pad_ptr, C + channel, token_k, inside_k, 3 * C, D, BLOCK_D, PAD_VALUE)
            v = read_part(qkv_ptr, pad_ptr, 2 * C + channel, token_k, inside_k, 3 * C, D, BLOCK_D, PAD_VALUE)
            k_inverse = inverse_length(k, COSINE)
            bias = bias_tile(table, tq, tk, M, N)
            similarity, weights, grad_weights = _tile(
                q, k, v, grad_out, q_inverse, k_inverse, lse, scale, bias, region_q, region_k,
                SHIFTED, COSINE, PRECISION,
            )  # fmt: skip
            grad_logits = weights * (grad_weights - delta_of_out[:, None])
            grad_q += product(grad_logits.to(k.dtype), unit_rows(k, k_inverse, COSINE), PRECISION)
            delta += tl.sum(weights * grad_weights, axis=1)
            if COSINE:
                grad_scale += tl.sum(grad_logits * similarity, axis=1)
                mean += tl.sum(weights * similarity, axis=1)
        tl.store(delta_ptr + rows + tq, delta, mask=tq < T)
        grad_scale += (delta_of_out - delta) * mean
        grad_q = normalise_backward(grad_q * scale, q, q_inverse, COSINE)
        write(grad_qkv_ptr + channel, grad_q, token_q, inside_q, 3 * C, D, BLOCK_D)
    if COSINE:
        tl.store(grad_scale_ptr + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(grad_scale, axis=0))


@triton.jit
def backward_keys_kernel(
    qkv_ptr, table_ptr, pad_ptr, scale_ptr, lse_ptr, grad_out_ptr, delta_ptr, grad_qkv_ptr, grad_pad_ptr,
    windows, H, W, heads,
    M: tl.constexpr, N: tl.constexpr, SHIFT_M: tl.constexpr, SHIFT_N: tl.constexpr, D: tl.constexpr,
    COSINE: tl.constexpr, PAD_VALUE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of keys and values for one tile of keys per window, and partial sums of those of padding.

    Grid: (programs * heads, tiles of keys). The partial sums are (tiles of keys, programs, h, 2, D).
    """
    T: tl.constexpr = M * N
    SHIFTED: tl.constexpr = SHIFT_M + SHIFT_N > 0
    head, C = tl.program_id(0) % heads, heads * D
    channel = head * D
    table = table_ptr + head * ((2 * M - 1) * (2 * N - 1))
    scale = scale_of(scale_ptr, head, D, COSINE)
    tk = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    grad_pad_k = tl.zeros((BLOCK_D,), tl.float32)
    grad_pad_v = tl.zeros((BLOCK_D,), tl.float32)
    for window in range(tl.program_id(0) // heads, windows, tl.num_programs(0) // heads):
        rows = (tl.cast(window, tl.int64) * heads + head) * T
        token_k, inside_k, region_k = locate(window, tk, H, W, M, N, SHIFT_M, SHIFT_N)
        k = read_part(qkv_ptr, pad_ptr, C + channel, token_k, inside_k, 3 * C, D, BLOCK_D, PAD_VALUE)
        v = read_part(qkv_ptr, pad_ptr, 2 * C + channel, token_k, inside_k, 3 * C, D, BLOCK_D, PAD_VALUE)
        k_inverse = inverse_length(k, COSINE)
        grad_k = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        grad_v = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        for start in range(0, T, BLOCK_T):
            tq = start + tl.arange(0, BLOCK_T)
            token_q, inside_q, region_q = locate(window, tq, H, W, M, N, SHIFT_M, SHIFT_N)
            q = read_part(qkv_ptr, pad_ptr, channel, token_q, inside_q, 3 * C, D, BLOCK_D, PAD_VALUE)
            grad_out = read(grad_out_ptr + channel, token_q, inside_q, C, D, BLOCK_D)
            lse = tl.load(lse_ptr + rows + tq, mask=tq < T, other=float("inf"))
            delta = tl.load(delta_ptr + rows + tq, mask=tq < T, other=0.0)
            q_inverse = inverse_length(q, COSINE)
            bias = bias_tile(table, tq, tk, M, N)
            _, weights, grad_weights = _tile(
                q, k, v, grad_out, q_inverse, k_inverse, lse, scale, bias, region_q, region_k,
                SHIFTED, COSINE, PRECISION,
            )  # fmt: skip
            grad_v += product(tl.trans(weights.to(v.dtype)), grad_out, PRECISION)
            grad_logits = (weights * (grad_weights - delta[:, None])).to(q.dtype)
            grad_k += product(tl.trans(grad_logits), unit_rows(q, q_inverse, COSINE), PRECISION)
        grad_k = normalise_backward(grad_k * scale, k, k_inverse, COSINE)
        write(grad_qkv_ptr + C + channel, grad_k, token_k, inside_k, 3 * C, D, BLOCK_D)
        write(grad_qkv_ptr + 2 * C + channel, grad_v, token_k, inside_k, 3 * C, D, BLOCK_D)
        if PAD_VALUE:
            padding = ((tk < T) & ~inside_k)[:, None]
            grad_pad_k += tl.sum(tl.where(padding, grad_k, 0.0), axis=0)
            grad_pad_v += tl.sum(tl.where(padding, grad_v, 0.0), axis=0)
    if PAD_VALUE:
        partial = grad_pad_ptr + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * 2 * D
        tl.store(partial + d, grad_pad_k, mask=d < D)
        tl.store(partial + D + d, grad_pad_v, mask=d < D)


@triton.jit
def backward_bias_kernel(
    qkv_ptr, table_ptr, pad_ptr, scale_ptr, lse_ptr, grad_out_ptr, delta_ptr, grad_bias_ptr,
    windows, H, W, heads,
    M: tl.constexpr, N: tl.constexpr, SHIFT_M: tl.constexpr, SHIFT_N: tl.constexpr, D: tl.constexpr,
    COSINE: tl.constexpr, PAD_VALUE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes partial sums of the gradients of the logits, (programs, h, side, side), for one tile of queries by keys.

    Grid: (programs * heads, tiles of queries, tiles of keys). The side is that of all tiles, T and more.
    """
    T: tl.constexpr = M * N
    SHIFTED: tl.constexpr = SHIFT_M + SHIFT_N > 0
    head, C = tl.program_id(0) % heads, heads * D
    channel = head * D
    scale = scale_of(scale_ptr, head, D, COSINE)
    tq = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    tk = tl.program_id(2) * BLOCK_T + tl.arange(0, BLOCK_T)
    bias = bias_tile(table_ptr + head * ((2 * M - 1) * (2 * N - 1)), tq, tk, M, N)
    grad_bias = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    for window in range(tl.program_id(0) // heads, windows, tl.num_programs(0) // heads):
        rows = (tl.cast(window, tl.int64) * heads + head) * T
        token_q, inside_q, region_q = locate(window, tq, H, W, M, N, SHIFT_M, SHIFT_N)
        token_k, inside_k, region_k = locate(window, tk, H, W, M, N, SHIFT_M, SHIFT_N)
        q = read_part(qkv_ptr, pad_ptr, channel, token_q, inside_q, 3 * C, D, BLOCK_D, PAD_VALUE)
        k = read_part(qkv_ptr, pad_ptr, C + channel, token_k, inside_k, 3 * C, D, BLOCK_D, PAD_VALUE)
        v = read_part(qkv_ptr, pad_ptr, 2 * C + channel, token_k, inside_k, 3 * C, D, BLOCK_D, PAD_VALUE)
        grad_out = read(grad_out_ptr + channel, token_q, inside_q, C, D, BLOCK_D)
        lse = tl.load(lse_ptr + rows + tq, mask=tq < T, other=float("inf"))
        delta = tl.load(delta_ptr + rows + tq, mask=tq < T, other=0.0)
        _, weights, grad_weights = _tile(
            q, k, v, grad_out, inverse_length(q, COSINE), inverse_length(k, COSINE), lse, scale, bias,
            region_q, region_k, SHIFTED, COSINE, PRECISION,
        )  # fmt: skip
        grad_bias += weights * (grad_weights - delta[:, None])
    side = tl.num_programs(1) * BLOCK_T
    partial = grad_bias_ptr + tl.program_id(0) * side * side
    tl.store(partial + tq[:, None] * side + tk[None, :], grad_bias)
