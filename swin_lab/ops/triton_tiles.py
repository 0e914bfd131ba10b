"""Parts of the Triton kernels: positions of tokens, tiles of maps and of the position bias, the normalisation of V2.

Shapes: T = M*N tokens of a window · D channels of a head · BLOCK_T, BLOCK_D sides of a tile, powers of two from 16
"""

import triton
import triton.language as tl

from swin_lab.ops import geometry

MASKED = tl.constexpr(geometry.MASKED)
EPSILON = tl.constexpr(1e-12)
"""The smallest length that F.normalize divides by, its default `eps`."""
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether the kernels run in Triton's interpreter."""


@triton.jit
def locate(window, t, H, W, M: tl.constexpr, N: tl.constexpr, SHIFT_M: tl.constexpr, SHIFT_N: tl.constexpr):
    """Returns where tokens t of a window are.

    Returns:
        Their index among the tokens of all maps; whether the map has them, unlike padding and t >= T; and a label that is equal
        for tokens of one region of the shifted map. It is 0 except in the last windows, which the seam of the shift crosses.
    """
    down, across = tl.cdiv(H, M), tl.cdiv(W, N)
    image, g = window // (down * across), window % (down * across)
    window_row, window_column = g // across, g % across
    i, j = t // N, t % N
    last = tl.cast(window_row == down - 1, tl.int32) + 2 * tl.cast(window_column == across - 1, tl.int32)
    region = ((i >= M - SHIFT_M).to(tl.int32) + 2 * (j >= N - SHIFT_N).to(tl.int32)) & last
    row = window_row * M + i + SHIFT_M
    row = tl.where(row >= down * M, row - down * M, row)
    column = window_column * N + j + SHIFT_N
    column = tl.where(column >= across * N, column - across * N, column)
    inside = (t < M * N) & (row < H) & (column < W)
    token = tl.cast(image, tl.int64) * H * W + row * W + column  # A batch can have more than 2^31 elements.
    return token, inside, region


@triton.jit
def bias_tile(table, tq, tk, M: tl.constexpr, N: tl.constexpr):
    """Returns the position bias of queries and keys from the rows of one head, and minus infinity for t >= T."""
    row_of_query = tq // N * (2 * N - 1) + tq % N
    row_of_key = tk // N * (2 * N - 1) + tk % N - ((M - 1) * (2 * N - 1) + N - 1)
    index = row_of_query[:, None] - row_of_key[None, :]
    exists = (tq < M * N)[:, None] & (tk < M * N)[None, :]
    bias = tl.load(table + index, mask=exists, other=0.0)
    return tl.where((tk < M * N)[None, :], bias, float("-inf"))


@triton.jit
def read(x, token, inside, stride, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Returns a tile (BLOCK_T, BLOCK_D) of tokens by channels of one head; zeros outside of the map and for channels >= D."""
    d = tl.arange(0, BLOCK_D)
    pointer = x + (token * stride)[:, None] + d[None, :]
    if D == BLOCK_D:
        return tl.load(pointer, mask=inside[:, None], other=0.0)
    return tl.load(pointer, mask=inside[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def read_part(qkv, pad, channel, token, inside, stride, D: tl.constexpr, BLOCK_D: tl.constexpr, PAD_VALUE: tl.constexpr):
    """Returns a tile of queries, keys or values from their first channel on, with the content of padding outside of the map."""
    tile = read(qkv + channel, token, inside, stride, D, BLOCK_D)
    if PAD_VALUE:
        d = tl.arange(0, BLOCK_D)
        value = tl.load(pad + channel + d, mask=d < D, other=0.0).to(tile.dtype)
        tile = tl.where(inside[:, None], tile, value[None, :])
    return tile


@triton.jit
def write(x, tile, token, inside, stride, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Writes the tokens of a tile that are in the map."""
    d = tl.arange(0, BLOCK_D)
    pointer = x + (token * stride)[:, None] + d[None, :]
    if D == BLOCK_D:
        tl.store(pointer, tile.to(x.dtype.element_ty), mask=inside[:, None])
    else:
        tl.store(pointer, tile.to(x.dtype.element_ty), mask=inside[:, None] & (d < D)[None, :])


@triton.jit
def scale_of(scale_ptr, head, D: tl.constexpr, COSINE: tl.constexpr):
    """Returns what similarities of a head are multiplied by."""
    if COSINE:
        return tl.load(scale_ptr + head)
    return 1.0 / tl.sqrt(tl.full((), D, tl.float32))


@triton.jit
def inverse_length(x, COSINE: tl.constexpr):
    """Returns 1 / max(length, EPSILON) of every row, in fp32; ones for V1."""
    if COSINE:
        x = x.to(tl.float32)
        return 1.0 / tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), EPSILON)
    return tl.full((x.shape[0],), 1.0, tl.float32)


@triton.jit
def unit_rows(x, inverse, COSINE: tl.constexpr):
    """Returns rows of length one, in the dtype of x, for V2; x for V1."""
    if COSINE:
        return (x.to(tl.float32) * inverse[:, None]).to(x.dtype)
    return x


@triton.jit
def normalise_backward(grad, x, inverse, COSINE: tl.constexpr):
    """Returns the gradient of x from that of x / max(length, EPSILON), row by row."""
    if COSINE:
        unit = x.to(tl.float32) * inverse[:, None]
        along = tl.sum(grad * unit, axis=1)
        along = tl.where(inverse < 0.999 / EPSILON, along, 0.0)  # A shorter row is divided by a constant.
        return (grad - along[:, None] * unit) * inverse[:, None]
    return grad


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """Returns the matrix product in fp32."""
    if INTERPRETED:  # The interpreter of Triton 3.8 multiplies the bits of bfloat16 as if they were integers.
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def similarities(q, k, q_inverse, k_inverse, COSINE: tl.constexpr, PRECISION: tl.constexpr):
    """Returns q k^T, or the cosines: the product of the unscaled rows is exact in half precision, and is scaled in fp32."""
    similarity = product(q, tl.trans(k), PRECISION)
    if COSINE:
        similarity *= q_inverse[:, None] * k_inverse[None, :]
    return similarity


@triton.jit
def add_mask(logits, region_q, region_k, SHIFTED: tl.constexpr):
    """Adds `MASKED` to the logits of pairs from different regions of a shifted map."""
    if SHIFTED:
        return logits + tl.where(region_q[:, None] != region_k[None, :], MASKED, 0.0)
    return logits
