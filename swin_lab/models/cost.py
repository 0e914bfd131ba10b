"""The cost of a forward pass, in the convention of the published tables."""

from swin_lab.models.config import SwinConfig


def count_macs(config: SwinConfig) -> int:
    """Returns the multiply-accumulate operations of one image of `img_size`: what the tables of the papers call FLOPs.

    The formula is that of the official code (`flops()` at f82860b): norms are included; padding, softmax, GELU and the bias MLP
    of V2 are not. Its count for the last norm is too small by a factor of 4^stages / 2^(stages + 1); this is
    reproduced so that the counts are equal.
    """
    ratio, patch = config.mlp_ratio, config.patch_size
    H, W = config.maps[0]
    count = H * W * config.channels[0] * (config.in_channels * patch**2 + 1)  # patch embedding and its norm
    for i, ((H, W), C, (M, N)) in enumerate(zip(config.maps, config.channels, config.windows, strict=True)):
        tokens = H * W
        attention = 4 * C * C + 2 * M * N * C  # qkv and projection; q k^T and weights times v
        count += config.depths[i] * tokens * int(attention + 2 * ratio * C * C + 2 * C)
        if i > 0:
            merged = 4 * tokens * (C // 2)  # elements of the map before merging
            count += tokens * 2 * C * C + (merged if config.version == 1 else merged // 2)
    H, W = config.maps[0]
    return count + config.channels[-1] * (H * W) // 2 ** len(config.maps) + config.channels[-1] * config.num_classes
