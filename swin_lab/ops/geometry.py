"""Pads, shifts and partitions feature maps into windows, and gives their masks and relative positions, as pure functions.

References:
1. Swin Transformer, arXiv 2103.14030, sections 3.2 (shifted windows, cyclic shift, relative position bias) and Fig. 4.
2. Swin Transformer V2, arXiv 2111.09883, section 3.3 (log-spaced continuous relative position bias).

Shapes: B batch · H, W feature map · C channels · M, N window height and width · T = M*N tokens · G windows per image
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_lab.ops.constants import constant

Size = tuple[int, int]

MASKED = -100.0
"""Is added to the logit of two tokens that only the cyclic shift brought into one window (the value of the official code)."""


def pad_to_multiple(x_BHWC: Tensor, multiple: Size, value_C: Tensor | None = None) -> Tensor:
    """Pads maps at the bottom and right until height and width are multiples of `multiple`.

    Args:
        x_BHWC: maps, (B, H, W, C).
        multiple: what the padded height and width are multiples of.
        value_C: the content of the added positions, (C,). If None, zeros.

    Returns:
        (B, H', W', C) with H' >= H and W' >= W.
    """
    _, H, W, _ = x_BHWC.shape
    bottom, right = -H % multiple[0], -W % multiple[1]
    if bottom == 0 and right == 0:
        return x_BHWC
    if value_C is None:
        return F.pad(x_BHWC, (0, 0, 0, right, 0, bottom))
    B, H, W, C = x_BHWC.shape
    fill_C = value_C.to(x_BHWC.dtype)
    x_BHWC = torch.cat([x_BHWC, fill_C.expand(B, H, right, C)], dim=2)
    return torch.cat([x_BHWC, fill_C.expand(B, bottom, W + right, C)], dim=1)


def fit_window(map_size: Size, window: Size, shift: Size) -> tuple[Size, Size]:
    """Returns the window and shift that are used on a map of this size.

    Along an axis where the map is smaller than the window, the window becomes as large as the map. Where one window covers the
    whole axis, there is no shift.

    Returns:
        (window, shift), each (rows, columns).
    """
    fitted = (min(window[0], map_size[0]), min(window[1], map_size[1]))
    kept = tuple(0 if map_size[axis] <= window[axis] else shift[axis] for axis in (0, 1))
    return fitted, (kept[0], kept[1])


def partition(x_BHWC: Tensor, window: Size) -> Tensor:
    """Cuts maps whose sides are multiples of the window into windows: (B, H, W, C) -> (B, G, T, C), row by row."""
    B, H, W, C = x_BHWC.shape
    M, N = window
    x = x_BHWC.reshape(B, H // M, M, W // N, N, C).transpose(2, 3)
    return x.reshape(B, (H // M) * (W // N), M * N, C)


def reverse_partition(x_BGTC: Tensor, window: Size, map_size: Size) -> Tensor:
    """Inverts `partition`: (B, G, T, C) -> (B, H, W, C)."""
    B, _, _, C = x_BGTC.shape
    (H, W), (M, N) = map_size, window
    x = x_BGTC.reshape(B, H // M, W // N, M, N, C).transpose(2, 3)
    return x.reshape(B, H, W, C)


def merge_neighbours(x_BHWC: Tensor) -> Tensor:
    """Concatenates each 2x2 neighbourhood along channels (section 3.1, patch merging): (B, H, W, C) -> (B, H/2, W/2, 4C).

    The order of the four is (0,0), (1,0), (0,1), (1,1) in (row, column), as in the published weights. Odd sides are padded
    with a row or column of zeros.
    """
    x = pad_to_multiple(x_BHWC, (2, 2))
    B, H, W, C = x.shape
    x = x.reshape(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 4, 2, 5)
    return x.reshape(B, H // 2, W // 2, 4 * C)


def crop_bias_table(table: Tensor, table_window: Size, window: Size) -> Tensor:
    """Returns the rows of a bias table that a smaller window uses: those of its offsets, in the middle of the table.

    Args:
        table: bias of every offset within `table_window`, ((2M'-1)(2N'-1), heads).
        table_window: the window that the table belongs to, (M', N').
        window: (M, N), at most as large.

    Returns:
        ((2M-1)(2N-1), heads).
    """
    if window == table_window:
        return table
    (M, N), (table_M, table_N) = window, table_window
    grid = table.reshape(2 * table_M - 1, 2 * table_N - 1, -1)
    middle = grid[table_M - M : table_M + M - 1, table_N - N : table_N + N - 1]
    return middle.reshape((2 * M - 1) * (2 * N - 1), -1)


@constant
def relative_position_index(window: Size, device: torch.device) -> Tensor:
    """Returns the row of the bias table for each pair of tokens of a window (section 3.2).

    Args:
        window: (M, N).
        device: the device of the index.

    Returns:
        (T, T) of int64: [query, key] -> (row offset + M - 1) * (2N - 1) + column offset + N - 1.
    """
    M, N = window
    rows, columns = torch.meshgrid(torch.arange(M, device=device), torch.arange(N, device=device), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    delta_row = rows[:, None] - rows[None, :] + M - 1
    delta_column = columns[:, None] - columns[None, :] + N - 1
    return delta_row * (2 * N - 1) + delta_column


@constant
def log_spaced_offsets(window: Size, trained_window: Size, device: torch.device) -> Tensor:
    """Returns the relative positions of a window as V2 sees them (equation 4 of ref. 2), one per row of a bias table.

    Offsets are scaled so that those of the window the weights were trained with span -8..8; then sign(x) log2(1 + |x|) / 3 is
    taken.

    Args:
        window: (M, N).
        trained_window: the window whose largest offset becomes 8, (M', N').
        device: the device of the offsets.

    Returns:
        ((2M-1)(2N-1), 2) of float32, (row, column), in the order of `relative_position_index`.
    """
    axes = []
    for side, trained in zip(window, trained_window, strict=True):
        offset = torch.arange(1 - side, side, device=device, dtype=torch.float32)
        axes.append(offset / max(trained - 1, 1) * 8)  # a window of one token has no offset but 0
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2)
    return offsets.sign() * (offsets.abs() + 1).log2() / 3


@constant
def shift_mask(map_size: Size, window: Size, shift: Size, device: torch.device) -> Tensor:
    """Returns the attention mask of a shifted map, by which only true neighbours attend to each other (Fig. 4).

    Args:
        map_size: size of the padded map, multiples of the window.
        window: (M, N).
        shift: how far the map was rolled up and left.
        device: the device of the mask.

    Returns:
        (G, T, T) of float32: 0 for pairs of one region, `MASKED` for the others.
    """
    return _mask_of_regions(partition(region_labels(map_size, window, shift, device)[None, :, :, None], window)[0, :, :, 0])


def region_labels(map_size: Size, window: Size, shift: Size, device: torch.device) -> Tensor:
    """Labels the positions of a shifted map by the region of the unshifted map they come from: (H, W) of int64."""
    rows, columns = (_axis_labels(map_size[axis], window[axis], shift[axis], device) for axis in (0, 1))
    return 3 * rows[:, None] + columns[None, :]


def _axis_labels(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Labels 0 in the windows that the shift leaves unchanged; in the last window, 1 before the seam and 2 after it."""
    position = torch.arange(length, device=device)
    if shift == 0:
        return torch.zeros_like(position)
    return (position >= length - window).long() + (position >= length - shift).long()


def _mask_of_regions(labels: Tensor) -> Tensor:
    """Returns 0 for pairs of tokens with one label and `MASKED` for the others: (..., T) -> (..., T, T) of float32."""
    other_region = labels[..., :, None] != labels[..., None, :]
    return torch.zeros(other_region.shape, dtype=torch.float32, device=labels.device).masked_fill(other_region, MASKED)


@dataclass(frozen=True)
class WindowKind:
    """Describes the windows of a shifted map that have the same mask."""

    count: int
    """Number of windows of this kind."""
    mask: Tensor | None
    """0 or `MASKED` for every pair of tokens, (T, T) of float32. If None, all tokens are true neighbours."""


def window_kinds(map_size: Size, window: Size, shift: Size, device: torch.device) -> tuple[WindowKind, ...]:
    """Returns the kinds of windows of a map: inner ones, and those at the right, at the bottom and in the corner.

    Only the last windows along a shifted axis contain tokens that are no neighbours, so that at most four masks differ.

    Args:
        map_size: size of the padded map, multiples of the window.
        window: (M, N).
        shift: how far the map was rolled up and left.
        device: the device of the masks.
    """
    kinds: list[WindowKind] = []
    for rows, columns in _blocks_of_kinds(map_size, window, shift):
        down = shift[0] if rows.stop == map_size[0] // window[0] else 0
        right = shift[1] if columns.stop == map_size[1] // window[1] else 0
        mask_TT = seam_mask(window, (down, right), device) if down or right else None
        kinds.append(WindowKind(len(rows) * len(columns), mask_TT))
    return tuple(kinds)


@constant
def seam_mask(window: Size, shift: Size, device: torch.device) -> Tensor:
    """Returns the mask of a window that the seam of a shift crosses along the axes with a shift: (T, T) of float32."""
    return _mask_of_regions(region_labels(window, window, shift, device).flatten())


def _blocks_of_kinds(map_size: Size, window: Size, shift: Size) -> list[tuple[range, range]]:
    """Returns rows and columns of the windows of each kind."""
    cuts = []
    for axis in (0, 1):
        count = map_size[axis] // window[axis]
        cuts.append([range(count)] if shift[axis] == 0 else [range(count - 1), range(count - 1, count)])
    return [(rows, columns) for rows in cuts[0] for columns in cuts[1]]


def rows_of_windows(
    map_size: Size, window: Size, shift: Size, num_heads: int, num_keys: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns which rows of a map of queries, keys and values belong to the windows, in the order of `window_kinds`.

    A row of the map contains the channels of one head: a map (H, W, 3, h, D) has H*W*3*h of them. 32 bits are enough: the map
    itself would have at least 2^31 rows.

    Args:
        map_size: size (H, W) of the padded map, multiples of the window.
        window: (M, N).
        shift: how far windows are moved down and right.
        num_heads: h.
        num_keys: keys of a window, at least T. The first token takes the places after the T-th one.
        device: the device of the index.

    Returns:
        For queries (G*h*T,), keys and values (G*h*num_keys,) of int32, windows outermost and tokens innermost.
    """
    G, T = map_size[0] * map_size[1] // (window[0] * window[1]), window[0] * window[1]
    keys = G * num_heads * num_keys
    index = _rows_of_windows(map_size, window, shift, num_heads, num_keys, device)
    queries, keys_index, values = index.split([G * num_heads * T, keys, keys])
    return queries, keys_index, values


@constant
def _rows_of_windows(map_size: Size, window: Size, shift: Size, num_heads: int, num_keys: int, device: torch.device) -> Tensor:
    """Returns the three parts of `rows_of_windows`, concatenated."""
    T, h = window[0] * window[1], num_heads
    tokens_GT = _tokens_of_windows(map_size, window, shift, device)
    tokens_GK = torch.cat([tokens_GT, tokens_GT[:, :1].expand(-1, num_keys - T)], dim=1)
    head_h1 = _count(h, device)[:, None]
    parts = [tokens[:, None, :] * (3 * h) + part * h + head_h1 for part, tokens in enumerate((tokens_GT, tokens_GK, tokens_GK))]
    return torch.cat([part.flatten() for part in parts])


@constant
def windows_of_rows(map_size: Size, window: Size, shift: Size, num_heads: int, num_keys: int, device: torch.device) -> Tensor:
    """Inverts `rows_of_windows`: the place of each row of the map, (H*W*3*h,), in queries, keys and values, concatenated."""
    T = window[0] * window[1]
    queries_Ph, keys_Ph = (_places(map_size, window, shift, num_heads, count, device) for count in (T, num_keys))
    keys = num_heads * num_keys * (map_size[0] * map_size[1] // T)
    before = num_heads * map_size[0] * map_size[1]
    return torch.stack([queries_Ph, before + keys_Ph, before + keys + keys_Ph], dim=1).flatten()


@constant
def outputs_of_map(map_size: Size, window: Size, shift: Size, num_heads: int, device: torch.device) -> Tensor:
    """Returns which row of the windows' outputs (G, h, T) each row of the map (H, W, h) is: (H*W*h,) of int32."""
    return _places(map_size, window, shift, num_heads, window[0] * window[1], device).flatten()


@constant
def rows_of_outputs(map_size: Size, window: Size, shift: Size, num_heads: int, device: torch.device) -> Tensor:
    """Inverts `outputs_of_map`: the row of the map (H, W, h) of each row of the windows (G, h, T): (G*h*T,) of int32."""
    tokens_GT = _tokens_of_windows(map_size, window, shift, device)
    return (tokens_GT[:, None, :] * num_heads + _count(num_heads, device)[:, None]).flatten()


def _count(end: int, device: torch.device) -> Tensor:
    """Returns 0, 1, ... end - 1 of int32."""
    return torch.arange(end, device=device, dtype=torch.int32)


def _tokens_of_windows(map_size: Size, window: Size, shift: Size, device: torch.device) -> Tensor:
    """Returns the position in the map of each token of each window, (G, T) of int32, in the order of `window_kinds`."""
    position_HW = _count(map_size[0] * map_size[1], device).reshape(map_size)
    rolled_HW = position_HW.roll((-shift[0], -shift[1]), dims=(0, 1))
    tokens_GT = partition(rolled_HW[None, :, :, None], window)[0, :, :, 0]
    grid_RCT = tokens_GT.reshape(map_size[0] // window[0], map_size[1] // window[1], -1)
    blocks = _blocks_of_kinds(map_size, window, shift)
    return torch.cat([grid_RCT[r.start : r.stop, c.start : c.stop].flatten(0, 1) for r, c in blocks])


def _places(map_size: Size, window: Size, shift: Size, num_heads: int, num_keys: int, device: torch.device) -> Tensor:
    """Returns the row of windows with `num_keys` places per head, (G, h, num_keys), of each token and head: (H*W, h)."""
    rows, columns = (map_size[axis] // window[axis] for axis in (0, 1))
    window_RC, first = torch.empty(rows, columns, dtype=torch.int32, device=device), 0
    for r, c in _blocks_of_kinds(map_size, window, shift):
        count = len(r) * len(c)
        window_RC[r.start : r.stop, c.start : c.stop] = (_count(count, device) + first).reshape(len(r), len(c))
        first += count
    token_MN = _count(window[0] * window[1], device).reshape(window)
    place_RMCN = window_RC[:, None, :, None] * (num_heads * num_keys) + token_MN[None, :, None, :]
    place_HW = place_RMCN.reshape(map_size).roll(shift, dims=(0, 1))
    return place_HW.reshape(-1, 1) + num_keys * _count(num_heads, device)
