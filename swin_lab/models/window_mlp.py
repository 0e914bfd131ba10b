"""The layer of Swin-MLP: one linear map over the tokens of a window for each group of channels, instead of attention.

References:
1. Swin Transformer, arXiv 2103.14030, section A3.3 and Table 8 (hierarchy and shifted windows in an MLP network).
2. The authors' code: models/swin_mlp.py of github.com/microsoft/Swin-Transformer at f82860b.

Shapes: B batch · H, W map · C channels · h heads · D = C/h · M, N window · T = M*N tokens · R, K rows and columns of windows
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_lab.ops.geometry import Size, fit_window


class WindowMlp(nn.Module):
    """Replaces each token of a window by a weighted sum over its tokens, with weights that are learned and the same everywhere.

    Every head has its own weights for its C/h channels: a grouped 1-D convolution with a kernel of one, whose channels are the
    tokens of all heads. Windows are shifted by padding the map with zeros, so that no mask is needed. The weights belong to a
    window of one size; there is no position bias.

    Args:
        dim: C.
        num_heads: divides C.
        window: (M, N) in tokens.
        shifted: whether windows are shifted by half their size.
    """

    def __init__(self, dim: int, num_heads: int, window: Size, shifted: bool) -> None:
        super().__init__()
        assert dim % num_heads == 0  # SwinConfig refuses other numbers.
        self.num_heads = num_heads
        self.window = window
        self.shift: Size = (window[0] // 2, window[1] // 2) if shifted else (0, 0)
        tokens = window[0] * window[1]
        self.weight = nn.Parameter(torch.empty(num_heads * tokens, tokens, 1))
        """The kernel of the grouped convolution, as published: [head and token of the output, token of the input, 0]."""
        self.bias = nn.Parameter(torch.zeros(num_heads * tokens))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Maps a feature map to one of the same shape, (B, H, W, C)."""
        (H, W), (M, N), h = x_BHWC.shape[1:3], self.window, self.num_heads
        (top, bottom), (left, right) = zero_padding((H, W), self.window, self.shift)
        # Padding with nothing would copy the map.
        padded_BHWC = F.pad(x_BHWC, (0, 0, left, right, top, bottom)) if any((top, bottom, left, right)) else x_BHWC
        x_BRMKNhD = padded_BHWC.unflatten(3, (h, -1)).unflatten(2, (-1, N)).unflatten(1, (-1, M))
        B, R, _, K, _, _, D = x_BRMKNhD.shape
        # One product per head for all windows: half the time of torch's grouped convolution with gradients on a CPU.
        x_hTX = x_BRMKNhD.permute(5, 2, 4, 0, 1, 3, 6).reshape(h, M * N, B * R * K * D)
        mixed_hTX = torch.baddbmm(self.bias.reshape(h, -1, 1), self.weight.reshape(h, M * N, M * N), x_hTX)
        mixed_BRMKNhD = mixed_hTX.reshape(h, M, N, B, R, K, D).permute(3, 4, 1, 5, 2, 0, 6)
        mixed_BHWC = mixed_BRMKNhD.reshape(B, R * M, K * N, h * D)
        return mixed_BHWC[:, top : top + H, left : left + W]


def zero_padding(map_size: Size, window: Size, shift: Size) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the zeros that shift the windows and fill the last ones: (top, bottom) and (left, right).

    A map that one window covers along an axis is not shifted along it, as in attention; if it is smaller, its tokens are the
    first ones of the window. For sides that are multiples of the window, the padding is that of ref. 2.
    """
    _, used = fit_window(map_size, window, shift)
    rows, columns = (_padding_of_axis(*sizes) for sizes in zip(map_size, window, used, strict=True))
    return rows, columns


def padded_map(map_size: Size, window: Size, shift: Size) -> Size:
    """Returns the size of a map with its `zero_padding`, multiples of the window."""
    rows, columns = zero_padding(map_size, window, shift)
    return map_size[0] + sum(rows), map_size[1] + sum(columns)


def _padding_of_axis(length: int, window: int, shift: int) -> tuple[int, int]:
    before = -shift % window  # The first window ends `shift` tokens after the border.
    return before, -(before + length) % window
