"""What a forward pass costs, in the convention of the published tables."""

from swin_lab.models.swin import SwinTransformer


def count_macs(model: SwinTransformer) -> int:
    """Multiply-accumulates of one image of the size the model is made for: what the tables of the papers call FLOPs.

    The formula is that of the official code (`flops()` at f82860b), norms included, padding, softmax, GELU and the bias MLP
    of V2 left out. Its count for the last norm is too small by a factor of 4^stages / 2^(stages + 1), kept for equality.
    """
    shape, ratio, patch = model.shape, model.config["mlp_ratio"], model.config["patch_size"]
    H, W = shape.maps[0]
    count = H * W * shape.channels[0] * (shape.in_channels * patch**2 + 1)  # patch embedding and its norm
    for i, ((H, W), C, (M, N)) in enumerate(zip(shape.maps, shape.channels, shape.windows, strict=True)):
        tokens = H * W
        attention = 4 * C * C + 2 * M * N * C  # qkv and projection; q k^T and weights times v
        count += shape.depths[i] * tokens * int(attention + 2 * ratio * C * C + 2 * C)
        if i > 0:
            merged = 4 * tokens * (C // 2)  # numbers of the map before merging
            count += tokens * 2 * C * C + (merged if model.config["version"] == 1 else merged // 2)
    H, W = shape.maps[0]
    return count + shape.channels[-1] * (H * W) // 2 ** len(shape.maps) + shape.channels[-1] * shape.num_classes
