"""Windows of a feature map: pad, shift, partition, mask and relative positions, as pure functions.

References:
1. Swin Transformer, arXiv 2103.14030, sections 3.2 (shifted windows, cyclic shift, relative position bias) and Fig. 4.
2. Swin Transformer V2, arXiv 2111.09883, section 3.3 (log-spaced continuous relative position bias).

Shapes: B batch · H, W feature map · C channels · M, N window height and width · T = M*N tokens · G windows per image
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]

MASKED = -100.0
"""Added to the logit of a pair of tokens that a cyclic shift brought together by accident (the value of the paper's code)."""


def pad_to_multiple(x_BHWC: Tensor, multiple: Size, value_C: Tensor | None = None) -> Tensor:
    """Pads at the bottom and right until height and width are multiples of `multiple`.

    Args:
        x_BHWC: maps, (B, H, W, C).
        multiple: what the padded height and width are multiples of.
        value_C: the content of the added positions, (C,); zeros if None.
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
    """The window and shift that are used on a map of this size.

    Along an axis where the map is smaller than the window, the window is the map; where one window covers the axis,
    there is nothing to shift.

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
    """Puts windows back in their places: (B, G, T, C) -> (B, H, W, C); the inverse of `partition`."""
    B, _, _, C = x_BGTC.shape
    (H, W), (M, N) = map_size, window
    x = x_BGTC.reshape(B, H // M, W // N, M, N, C).transpose(2, 3)
    return x.reshape(B, H, W, C)


def merge_neighbours(x_BHWC: Tensor) -> Tensor:
    """Concatenates each 2x2 neighbourhood along channels (section 3.1, patch merging): (B, H, W, C) -> (B, H/2, W/2, 4C).

    The order of the four is (0,0), (1,0), (0,1), (1,1) in (row, column), as in the published weights. Odd sides get a row
    or column of zeros.
    """
    x = pad_to_multiple(x_BHWC, (2, 2))
    B, H, W, C = x.shape
    x = x.reshape(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 4, 2, 5)
    return x.reshape(B, H // 2, W // 2, 4 * C)


def relative_position_index(window: Size, table_window: Size, device: torch.device) -> Tensor:
    """Row of the bias table for each pair of tokens of a window (section 3.2).

    Args:
        window: the window in use, (M, N).
        table_window: the window the table was made for, at least as large; a smaller window reads the middle of the table.
        device: where the index is wanted.

    Returns:
        (T, T) of int64: [query, key] -> (Δrow + M' - 1) * (2N' - 1) + Δcolumn + N' - 1 with (M', N') the table's window.
    """
    make = _relative_position_index if _may_be_kept() else _relative_position_index.__wrapped__
    return make(window, table_window, str(device))


def log_spaced_offsets(window: Size, trained_window: Size, device: torch.device) -> Tensor:
    """The relative positions of a window as V2 sees them (equation 4 of ref. 2), one per row of a bias table.

    Offsets are scaled so that those of the window the weights were trained with span -8..8, then sign(x) log2(1 + |x|) / 3.

    Args:
        window: (M, N).
        trained_window: the window whose farthest offset is 8, (M', N').
        device: where the offsets are wanted.

    Returns:
        ((2M-1)(2N-1), 2) of float32, (row, column), in the order of `relative_position_index`.
    """
    make = _log_spaced_offsets if _may_be_kept() else _log_spaced_offsets.__wrapped__
    return make(window, trained_window, str(device))


def shift_mask(map_size: Size, window: Size, shift: Size, device: torch.device) -> Tensor:
    """What is added to the logits of a cyclically shifted map so that only true neighbours attend to each other (Fig. 4).

    Args:
        map_size: the padded map, multiples of the window.
        window: (M, N).
        shift: how far the map was rolled up and left.
        device: where the mask is wanted.

    Returns:
        (G, T, T) of float32: 0 for pairs of one region, `MASKED` for the others.
    """
    make = _shift_mask if _may_be_kept() else _shift_mask.__wrapped__
    return make(map_size, window, shift, str(device))


def region_labels(map_size: Size, window: Size, shift: Size) -> Tensor:
    """Labels the positions of a shifted map by the region of the unshifted map they come from: (H, W) of int64."""
    rows, columns = (_axis_labels(map_size[axis], window[axis], shift[axis]) for axis in (0, 1))
    return 3 * rows[:, None] + columns[None, :]


def _axis_labels(length: int, window: int, shift: int) -> Tensor:
    """0 in the windows that the shift leaves whole; in the last window, 1 before the seam and 2 behind it."""
    position = torch.arange(length, device="cpu")
    if shift == 0:
        return torch.zeros_like(position)
    return (position >= length - window).long() + (position >= length - shift).long()


# The caches hold small constants of the geometry: nothing in them depends on a weight or an image. They are made outside
# inference mode, because tensors born inside it may not be used by autograd later.


def _may_be_kept() -> bool:
    """Whether tensors made now are real: not while a compiler or an exporter traces with stand-ins."""
    return not torch.compiler.is_compiling() and type(torch.empty(0, device="cpu")) is Tensor


@lru_cache(maxsize=128)
def _relative_position_index(window: Size, table_window: Size, device: str) -> Tensor:
    with torch.inference_mode(False):
        rows, columns = torch.meshgrid(*(torch.arange(side, device="cpu") for side in window), indexing="ij")
        rows, columns = rows.flatten(), columns.flatten()
        delta_row = rows[:, None] - rows[None, :] + table_window[0] - 1
        delta_column = columns[:, None] - columns[None, :] + table_window[1] - 1
        return (delta_row * (2 * table_window[1] - 1) + delta_column).to(device)


@lru_cache(maxsize=128)
def _log_spaced_offsets(window: Size, trained_window: Size, device: str) -> Tensor:
    with torch.inference_mode(False):
        axes = []
        for side, trained in zip(window, trained_window, strict=True):
            offset = torch.arange(1 - side, side, device="cpu", dtype=torch.float32)
            axes.append(offset / max(trained - 1, 1) * 8)  # a window of one token has no offset but 0
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2)
        return (offsets.sign() * (offsets.abs() + 1).log2() / 3).to(device)


@lru_cache(maxsize=16)  # up to 10 MB each for images of 900 pixels
def _shift_mask(map_size: Size, window: Size, shift: Size, device: str) -> Tensor:
    with torch.inference_mode(False):
        labels_GT = partition(region_labels(map_size, window, shift)[None, :, :, None], window)[0, :, :, 0]
        other_region = labels_GT[:, :, None] != labels_GT[:, None, :]
        return torch.zeros(other_region.shape, device="cpu").masked_fill(other_region, MASKED).to(device)
