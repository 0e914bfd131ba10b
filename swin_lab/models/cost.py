"""The cost of a forward pass, in the convention of the published tables.

The formulas are those of the official code (`flops()` at f82860b): norms are included, one operation per element; padding,
softmax, GELU and the bias MLP of V2 are not. For Swin-MLP, the formulas are those of its own file, which count the windows that
a shift adds.
"""

from math import prod

from swin_lab.models.config import SwinConfig
from swin_lab.models.window_mlp import padded_map
from swin_lab.ops.geometry import Size


def count_macs(config: SwinConfig) -> int:
    """Returns the multiply-accumulate operations of one image of `img_size`: what the tables of the papers call FLOPs."""
    stages = sum(
        merging_macs(config, i) + sum(token_mixer_macs(config, i, j % 2 == 1) + mlp_macs(config, i) for j in range(depth))
        for i, depth in enumerate(config.depths)
    )
    return embedding_macs(config) + stages + norm_macs(config) + head_macs(config)


def embedding_macs(config: SwinConfig) -> int:
    """Returns the operations of the patch embedding and its norm."""
    return _tokens(config, 0) * config.embed_dim * (config.in_channels * config.patch_size**2 + 1)


def merging_macs(config: SwinConfig, stage: int) -> int:
    """Returns the operations of the patch merging at the beginning of a stage, counted from 0; the first stage has none."""
    if stage == 0:
        return 0
    tokens, C = _tokens(config, stage), config.channels[stage]
    merged = 4 * tokens * (C // 2)  # elements of the map before merging
    return tokens * 2 * C * C + (merged if config.version == 1 else merged // 2)


def token_mixer_macs(config: SwinConfig, stage: int, shifted: bool) -> int:
    """Returns the operations of the attention of one block, or of its window MLP, and of the norm before it.

    Args:
        config: hyper-parameters.
        stage: counted from 0.
        shifted: whether the windows of the block are shifted, which adds windows in Swin-MLP.
    """
    if config.token_mixer == "attention":
        return attention_macs(config, stage)
    M, N = config.windows[stage]
    shift = (M // 2, N // 2) if shifted else (0, 0)
    return window_mlp_macs(config.channels[stage], config.maps[stage], (M, N), shift)


def attention_macs(config: SwinConfig, stage: int) -> int:
    """Returns the operations of the attention of one block and its norm: qkv and projection; q k^T and weights times v."""
    C, (M, N) = config.channels[stage], config.windows[stage]
    return _tokens(config, stage) * (4 * C * C + 2 * M * N * C + C)


def window_mlp_macs(channels: int, map_size: Size, window: Size, shift: Size) -> int:
    """Returns the operations of the window MLP of one block and its norm: weights times tokens, padding included.

    Args:
        channels: C of the stage.
        map_size: (H, W).
        window: (M, N) of the weights; the map may be smaller.
        shift: how far the windows are shifted, see `zero_padding`.
    """
    return channels * (prod(padded_map(map_size, window, shift)) * prod(window) + prod(map_size))


def mlp_macs(config: SwinConfig, stage: int) -> int:
    """Returns the operations of the MLP of one block and its norm."""
    C = config.channels[stage]
    return _tokens(config, stage) * (int(2 * config.mlp_ratio * C * C) + C)


def norm_macs(config: SwinConfig) -> int:
    """Returns the operations of the last norm.

    The official count is 2^(stages - 2) times the elements of the last map. It is reproduced so that the sums are equal.
    """
    return config.channels[-1] * _tokens(config, 0) // 2 ** len(config.maps)


def head_macs(config: SwinConfig) -> int:
    """Returns the operations of the classification head."""
    return config.channels[-1] * config.num_classes


def _tokens(config: SwinConfig, stage: int) -> int:
    H, W = config.maps[stage]
    return H * W
