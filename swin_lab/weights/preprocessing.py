"""How pictures are prepared for published weights, where the files do not tell: the evaluation of each library."""

from collections.abc import Sequence
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

CROP = {"official": 224 / 256, "mmpretrain": 224 / 256, "timm": 0.9, "torchvision": 224 / 256, "huggingface": 1.0}
"""Part of the resized side that the centre crop keeps; all of it from 384 pixels on."""

TORCHVISION_CROP = {
    (1, 96, 12): 224 / 232,
    (1, 96, 24): 224 / 246,
    (1, 128, 24): 224 / 238,
    (2, 96, 12): 256 / 260,
    (2, 96, 24): 256 / 260,
    (2, 128, 24): 256 / 272,
}
"""Of its swin_t, swin_s, swin_b and swin_v2_*, by version, width and number of blocks."""


def published_preprocessing(
    layout: str, config: dict[str, Any], beside: dict[str, Any], preprocessor: dict[str, Any]
) -> dict[str, Any]:
    """As a checkpoint of this project describes it: img_size, channels, crop_pct, interpolation, mean, std.

    Args:
        layout: name of the file's layout.
        config: of the network, see `SwinTransformer`.
        beside: config.json of the file's folder, {} if there is none; timm's says more in `pretrained_cfg`.
        preprocessor: preprocessor_config.json of a transformers folder, {} if there is none.
    """
    given: int | Sequence[int] = config["img_size"]
    size = [given, given] if isinstance(given, int) else list(given)
    told = beside.get("pretrained_cfg") or {}
    crop = 1.0 if min(size) >= 384 else CROP.get(layout, CROP["official"])
    if layout == "torchvision":
        crop = TORCHVISION_CROP.get((config["version"], config["embed_dim"], sum(config["depths"])), crop)
    return {
        "img_size": size,
        "channels": config["in_channels"],
        "crop_pct": told.get("crop_pct", crop),
        "interpolation": told.get("interpolation", "bicubic"),
        **dict(zip(("mean", "std"), _statistics(config["in_channels"], told, preprocessor), strict=True)),
    }


def _statistics(channels: int, told: dict[str, Any], preprocessor: dict[str, Any]) -> tuple[list[float], list[float]]:
    mean = list(told.get("mean") or preprocessor.get("image_mean") or IMAGENET_MEAN)
    std = list(told.get("std") or preprocessor.get("image_std") or IMAGENET_STD)
    if channels == len(mean):
        return mean, std
    return [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels
