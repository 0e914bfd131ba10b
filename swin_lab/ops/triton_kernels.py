"""Triton kernels of window attention, forward and backward: they read and write maps in image order, and copy nothing.

A program handles one head of many windows. Padding, cyclic shift and partition are arithmetic on the positions of tokens, so
that a window's rows are read straight from the map of queries, keys and values, (B, H, W, 3C), and written to where they
belong. Heads are the fastest index of the grid: programs that run at the same time read neighbouring segments of the same rows.

A window of at most `BLOCK_T` tokens is one tile, and its position bias stays in registers while a program goes through its
windows. Larger windows take several tiles: the forward pass then computes the softmax online, and the backward pass has three
kernels, one for the queries, one for keys and values, and one for the bias. No kernel uses atomics: sums over windows are made
by each program for its own windows and written as partial sums, so that results are the same in every run.

References:
1. Swin Transformer, arXiv 2103.14030, section 3.2, equation 4, and Fig. 4.
2. Swin Transformer V2, arXiv 2111.09883, equation 2: the cosine attention (COSINE).
3. Milakov and Gimelshein, arXiv 1805.02867: the online softmax.
4. FlashAttention-2, arXiv 2307.08691, section 3.1: forward and backward passes in tiles.

Arguments of kernels:
    qkv_ptr, out_ptr, grad_out_ptr, grad_qkv_ptr: maps, (B, H, W, 3C) or (B, H, W, C).
    table_ptr: relative position bias, transposed, (h, (2M-1)(2N-1)), fp32.
    pad_ptr: the content of padding, (3C,); read if PAD_VALUE. Otherwise padding is zero.
    scale_ptr: what cosines are multiplied by, (h,), fp32; read if COSINE.
    lse_ptr, delta_ptr: logarithm of the sum of exponentials, and sum of weights times their gradients, (windows, h, T), fp32.
    windows, H, W, heads: number of windows in the batch, size of the maps, and heads.
    M, N, SHIFT_M, SHIFT_N, D: window, shift and channels of a head.
    BLOCK_T, BLOCK_D: sides of a tile, powers of two from 16.
    PRECISION: how tl.dot multiplies fp32, "ieee" or "tf32".
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
def forward_kernel(
    qkv_ptr, table_ptr, pad_ptr, scale_ptr, out_ptr, lse_ptr,
    windows, H, W, heads,
    M: tl.constexpr, N: tl.constexpr, SHIFT_M: tl.constexpr, SHIFT_N: tl.constexpr, D: tl.constexpr,
    COSINE: tl.constexpr, PAD_VALUE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes the output of one tile of queries per window, and, for windows of several tiles, the sums of exponentials.

    Grid: (programs * heads, tiles of queries).
    """
    T: tl.constexpr = M * N
    SHIFTED: tl.constexpr = SHIFT_M + SHIFT_N > 0
    head, C = tl.program_id(0) % heads, heads * D
    channel = head * D
    table = table_ptr + head * ((2 * M - 1) * (2 * N - 1))
    scale = scale_of(scale_ptr, head, D, COSINE)
    tq = tl.arange(0, BLOCK_T)
    if T <= BLOCK_T:
        bias = bias_tile(table, tq, tq, M, N)
    else:
        tq += tl.program_id(1) * BLOCK_T
    for window in range(tl.program_id(0) // heads, windows, tl.num_programs(0) // heads):
        token_q, inside_q, region_q = locate(window, tq, H, W, M, N, SHIFT_M, SHIFT_N)
        q = read_part(qkv_ptr, pad_ptr, channel, token_q, inside_q, 3 * C, D, BLOCK_D, PAD_VALUE)
        q_inverse = inverse_length(q, COSINE)
        highest = tl.full((BLOCK_T,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_T,), tl.float32)
        out = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        for start in range(0, T, BLOCK_T):
            tk = start + tl.arange(0, BLOCK_T)
            token_k, inside_k, region_k = locate(window, tk, H, W, M, N, SHIFT_M, SHIFT_N)
            k = read_part(qkv_ptr, pad_ptr, C + channel, token_k, inside_k, 3 * C, D, BLOCK_D, PAD_VALUE)
            v = read_part(qkv_ptr, pad_ptr, 2 * C + channel, token_k, inside_k, 3 * C, D, BLOCK_D, PAD_VALUE)
            if T > BLOCK_T:
                bias = bias_tile(table, tq, tk, M, N)
            logits = similarities(q, k, q_inverse, inverse_length(k, COSINE), COSINE, PRECISION) * scale + bias
            logits = add_mask(logits, region_q, region_k, SHIFTED)
            highest_yet = tl.maximum(highest, tl.max(logits, axis=1))
            weights = tl.exp(logits - highest_yet[:, None])
            correction = tl.exp(highest - highest_yet)
            total = total * correction + tl.sum(weights, axis=1)
            out = out * correction[:, None] + product(weights.to(v.dtype), v, PRECISION)
            highest = highest_yet
        write(out_ptr + channel, out / total[:, None], token_q, inside_q, C, D, BLOCK_D)
        if T > BLOCK_T:
            rows = (tl.cast(window, tl.int64) * heads + head) * T
            tl.store(lse_ptr + rows + tq, highest + tl.log(total), mask=tq < T)


@triton.jit
def backward_kernel(
    qkv_ptr, table_ptr, pad_ptr, scale_ptr, grad_out_ptr, grad_qkv_ptr, grad_bias_ptr, grad_pad_ptr, grad_scale_ptr,
    windows, H, W, heads,
    M: tl.constexpr, N: tl.constexpr, SHIFT_M: tl.constexpr, SHIFT_N: tl.constexpr, D: tl.constexpr,
    COSINE: tl.constexpr, PAD_VALUE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes all gradients of windows of one tile; the softmax is recomputed, so that nothing is saved but the inputs.

    Grid: (programs * heads,). Partial sums over the windows of a program: of the gradients of the logits,
    (programs, h, BLOCK_T, BLOCK_T), of those of padded keys and values, (programs, h, 2, D), and of the scale, (programs, h).
    """
    T: tl.constexpr = M * N
    SHIFTED: tl.constexpr = SHIFT_M + SHIFT_N > 0
    program = tl.program_id(0)
    head, C = program % heads, heads * D
    channel = head * D
    scale = scale_of(scale_ptr, head, D, COSINE)
    t, d = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_D)
    bias = bias_tile(table_ptr + head * ((2 * M - 1) * (2 * N - 1)), t, t, M, N)
    grad_bias = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    grad_scale = tl.zeros((BLOCK_T,), tl.float32)
    grad_pad_k = tl.zeros((BLOCK_D,), tl.float32)
    grad_pad_v = tl.zeros((BLOCK_D,), tl.float32)
    for window in range(program // heads, windows, tl.num_programs(0) // heads):
        token, inside, region = locate(window, t, H, W, M, N, SHIFT_M, SHIFT_N)
        q = read_part(qkv_ptr, pad_ptr, channel, token, inside, 3 * C, D, BLOCK_D, PAD_VALUE)
        k = read_part(qkv_ptr, pad_ptr, C + channel, token, inside, 3 * C, D, BLOCK_D, PAD_VALUE)
        v = read_part(qkv_ptr, pad_ptr, 2 * C + channel, token, inside, 3 * C, D, BLOCK_D, PAD_VALUE)
        grad_out = read(grad_out_ptr + channel, token, inside, C, D, BLOCK_D)
        q_inverse, k_inverse = inverse_length(q, COSINE), inverse_length(k, COSINE)
        similarity = similarities(q, k, q_inverse, k_inverse, COSINE, PRECISION)
        logits = add_mask(similarity * scale + bias, region, region, SHIFTED)
        weights = tl.exp(logits - tl.max(logits, axis=1)[:, None])
        weights /= tl.sum(weights, axis=1)[:, None]

        grad_weights = product(grad_out, tl.trans(v), PRECISION)
        grad_logits = weights * (grad_weights - tl.sum(weights * grad_weights, axis=1)[:, None])
        grad_bias += grad_logits
        if COSINE:
            grad_scale += tl.sum(grad_logits * similarity, axis=1)
        grad_v = product(tl.trans(weights.to(v.dtype)), grad_out, PRECISION)
        grad_logits = grad_logits.to(q.dtype)
        grad_q = product(grad_logits, unit_rows(k, k_inverse, COSINE), PRECISION) * scale
        grad_k = product(tl.trans(grad_logits), unit_rows(q, q_inverse, COSINE), PRECISION) * scale
        grad_q = normalise_backward(grad_q, q, q_inverse, COSINE)
        grad_k = normalise_backward(grad_k, k, k_inverse, COSINE)

        write(grad_qkv_ptr + channel, grad_q, token, inside, 3 * C, D, BLOCK_D)
        write(grad_qkv_ptr + C + channel, grad_k, token, inside, 3 * C, D, BLOCK_D)
        write(grad_qkv_ptr + 2 * C + channel, grad_v, token, inside, 3 * C, D, BLOCK_D)
        if PAD_VALUE:
            padding = ((t < T) & ~inside)[:, None]
            grad_pad_k += tl.sum(tl.where(padding, grad_k, 0.0), axis=0)
            grad_pad_v += tl.sum(tl.where(padding, grad_v, 0.0), axis=0)
    tl.store(grad_bias_ptr + program * (BLOCK_T * BLOCK_T) + t[:, None] * BLOCK_T + t[None, :], grad_bias)
    if PAD_VALUE:
        tl.store(grad_pad_ptr + program * 2 * D + d, grad_pad_k, mask=d < D)
        tl.store(grad_pad_ptr + program * 2 * D + D + d, grad_pad_v, mask=d < D)
    if COSINE:
        tl.store(grad_scale_ptr + program, tl.sum(grad_scale, axis=0))


@triton.jit
def table_gradient_kernel(
    grad_bias_ptr, grad_table_ptr, heads, SIDE, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Sums the gradient of a bias, (h, SIDE, SIDE), over the pairs of tokens with the same offset; writes ((2M-1)(2N-1), h).

    Grid: (rows of the table, heads).
    """
    row, head = tl.program_id(0), tl.program_id(1)
    down = row // (2 * N - 1) - (M - 1)
    right = row % (2 * N - 1) - (N - 1)
    tq = tl.arange(0, BLOCK)
    key_row, key_column = tq // N - down, tq % N - right
    exists = (tq < M * N) & (key_row >= 0) & (key_row < M) & (key_column >= 0) & (key_column < N)
    pairs = tl.load(grad_bias_ptr + (head * SIDE + tq) * SIDE + key_row * N + key_column, mask=exists, other=0.0)
    tl.store(grad_table_ptr + row * heads + head, tl.sum(pairs, axis=0))
