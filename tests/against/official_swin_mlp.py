"""The official Swin-MLP as a function of its state dict, written from the formulas of its code and not copied from it.

It is written as the code's own comments describe it (models/swin_mlp.py of github.com/microsoft/Swin-Transformer at f82860b):
zeros around the map, one window after the other, and torch's grouped 1-D convolution, whose channels are heads and tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def official_shapes(patch: int, C: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int, classes: int) -> dict:
    """Returns every key of the official state dict with its shape."""
    shapes = {"patch_embed.proj.weight": (C, 3, patch, patch), "patch_embed.proj.bias": (C,)}
    shapes |= {"patch_embed.norm.weight": (C,), "patch_embed.norm.bias": (C,)}
    for s, (depth, h) in enumerate(zip(depths, heads, strict=True)):
        D, T = C * 2**s, window**2
        for b in range(depth):
            block = f"layers.{s}.blocks.{b}."
            shapes |= {f"{block}{norm}.{kind}": (D,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
            shapes |= {f"{block}spatial_mlp.weight": (h * T, T, 1), f"{block}spatial_mlp.bias": (h * T,)}
            shapes |= {f"{block}mlp.fc1.weight": (4 * D, D), f"{block}mlp.fc1.bias": (4 * D,)}
            shapes |= {f"{block}mlp.fc2.weight": (D, 4 * D), f"{block}mlp.fc2.bias": (D,)}
        if s < len(depths) - 1:
            merge = f"layers.{s}.downsample."
            shapes |= {
                f"{merge}reduction.weight": (2 * D, 4 * D),
                f"{merge}norm.weight": (4 * D,),
                f"{merge}norm.bias": (4 * D,),
            }
    last = C * 2 ** (len(depths) - 1)
    return shapes | {"norm.weight": (last,), "norm.bias": (last,), "head.weight": (classes, last), "head.bias": (classes,)}


def official_macs(img_size: int, C: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int, classes: int) -> float:
    """Returns the multiply-accumulates by `flops()` of the official code, whose last norm counts 2^(stages - 2) times."""
    side = img_size // 4
    count = side**2 * C * 3 * 16 + side**2 * C
    for s, depth in enumerate(depths):
        D, H = C * 2**s, side // 2**s
        for b in range(depth):
            windows = (H / window + 1) ** 2 if b % 2 and window < H else (H / window) ** 2
            count += 2 * H * H * D + windows * D * window**4 + 8 * H * H * D * D
        if s < len(depths) - 1:
            count += H * H * D + (H // 2) ** 2 * 4 * D * 2 * D
    last = C * 2 ** (len(depths) - 1)
    return count + last * side**2 // 2 ** len(depths) + last * classes


def official_logits(state: State, image: Tensor, depths: tuple[int, ...], heads: tuple[int, ...], window: int) -> Tensor:
    """Maps images (B, 3, side, side), whose maps are multiples of the window, to logits."""
    stem = state["patch_embed.proj.weight"]
    x_BCHW = F.conv2d(image, stem, state["patch_embed.proj.bias"], stride=stem.shape[-1])
    x = _norm(state, "patch_embed.norm", x_BCHW.permute(0, 2, 3, 1))
    for s, depth in enumerate(depths):
        for b in range(depth):
            shift = window // 2 if b % 2 and min(x.shape[1:3]) > window else 0
            x = _block(state, f"layers.{s}.blocks.{b}.", x, heads[s], window, shift)
        if s < len(depths) - 1:
            merge = f"layers.{s}.downsample."
            corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            x = F.linear(_norm(state, f"{merge}norm", torch.cat(corners, -1)), state[f"{merge}reduction.weight"])
    return F.linear(_norm(state, "norm", x).flatten(1, 2).mean(1), state["head.weight"], state["head.bias"])


def _block(state: State, block: str, x: Tensor, heads: int, window: int, shift: int) -> Tensor:
    B, H, W, C = x.shape
    before, after = (window - shift, shift) if shift else (0, 0)
    zeros = F.pad(_norm(state, f"{block}norm1", x), (0, 0, before, after, before, after))
    mixed = torch.zeros_like(zeros)
    for row in range(0, zeros.shape[1], window):
        for column in range(0, zeros.shape[2], window):
            place = (slice(None), slice(row, row + window), slice(column, column + window))
            tokens = zeros[place].reshape(B, window**2, heads, C // heads).transpose(1, 2).flatten(1, 2)
            weight, bias = state[f"{block}spatial_mlp.weight"], state[f"{block}spatial_mlp.bias"]
            out = F.conv1d(tokens, weight, bias, groups=heads).unflatten(1, (heads, -1))
            mixed[place] = out.transpose(1, 2).reshape(B, window, window, C)
    x = x + mixed[:, before : before + H, before : before + W]
    hidden = F.linear(_norm(state, f"{block}norm2", x), state[f"{block}mlp.fc1.weight"], state[f"{block}mlp.fc1.bias"])
    return x + F.linear(F.gelu(hidden), state[f"{block}mlp.fc2.weight"], state[f"{block}mlp.fc2.bias"])


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])
