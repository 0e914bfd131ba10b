"""Adapts weights to other window sizes and other numbers of input channels.

References:
1. The official code's `load_pretrained` (utils.py at f82860b): bicubic tables.
2. BEiT's fine-tuning (github.com/microsoft/unilm at 5255d52, beit/run_class_finetuning.py): geometric positions.
"""

from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from swin_lab.errors import UserError, did_you_mean
from swin_lab.ops.geometry import Size

METHODS = ("bicubic", "geometric")


def check_method(method: str) -> None:
    """Raises UserError unless bias tables can be interpolated by that method."""
    if method not in METHODS:
        raise UserError(f"bias_interpolation={method} is unknown{did_you_mean(method, METHODS)}")


def resize_table(table: Tensor, window: Size, wanted: Size, method: str) -> Tensor:
    """Interpolates a relative position bias table of V1 for another window.

    Args:
        table: ((2M-1)(2N-1), heads).
        window: (M, N).
        wanted: (M', N').
        method: "bicubic" resizes the table like an image, as the official code does (ref. 1); "geometric" keeps the bias of
            small offsets, spaces the old offsets in a geometric progression, and interpolates with cubic splines (ref. 2).

    Returns:
        ((2M'-1)(2N'-1), heads) of the table's dtype.
    """
    from scipy.interpolate import RectBivariateSpline  # The import takes long and few commands need it.

    check_method(method)
    heads = table.shape[1]
    image = table.float().T.reshape(heads, 2 * window[0] - 1, 2 * window[1] - 1)
    size = (2 * wanted[0] - 1, 2 * wanted[1] - 1)
    if method == "bicubic":
        resized = F.interpolate(image[None], size=size, mode="bicubic", align_corners=False)[0]
    else:
        at = [_geometric_positions(2 * old - 1, new) for old, new in zip(window, size, strict=True)]
        queries = [np.arange(new) - new // 2 for new in size]
        order = [min(3, len(positions) - 1) for positions in at]
        splines = [RectBivariateSpline(*at, of_head, kx=order[0], ky=order[1])(*queries) for of_head in image.double().numpy()]
        resized = torch.from_numpy(np.stack(splines)).float()
    return resized.reshape(heads, -1).T.contiguous().to(table.dtype)


def _geometric_positions(old: int, new: int) -> np.ndarray:
    """Returns the positions of `old` offsets in a geometric progression that ends at the last of `new` offsets."""
    from scipy.optimize import brentq

    steps, reach = old // 2, new // 2
    ratio = brentq(lambda q: sum(q**i for i in range(steps)) - reach, 1e-3, reach + 1.0) if reach > steps else 1.0
    outwards = list(accumulate(ratio**i for i in range(steps)))
    return np.array([-position for position in reversed(outwards)] + [0.0] + outwards)


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapts the patch embedding of RGB to another number of channels: summed for one, else repeated and scaled.

    Args:
        weight: (C, 3, patch, patch).
        channels: the new number of channels.

    Raises:
        UserError: the weights are for another number of channels than 3.
    """
    if weight.shape[1] != 3:
        raise UserError(f"in_channels={channels}: the file has {weight.shape[1]} input channels; only RGB (3) can be adapted")
    from timm.models import adapt_input_conv

    adapted: Tensor = adapt_input_conv(channels, weight)
    return adapted.contiguous()
