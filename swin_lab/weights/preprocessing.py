"""How images are prepared for an evaluation: the way of the official code and of each library, by name (a preset)."""

from collections.abc import Sequence
from typing import Any

from swin_lab.errors import UserError, did_you_mean

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

TORCHVISION_CROP = {
    (1, 96, 12): 224 / 232,
    (1, 96, 24): 224 / 246,
    (1, 128, 24): 224 / 238,
    (2, 96, 12): 256 / 260,
    (2, 96, 24): 256 / 260,
    (2, 128, 24): 256 / 272,
}
"""Of its swin_t, swin_s, swin_b and swin_v2_*, by version, width and number of blocks."""


PRESET_OF = {
    "official": "official",
    "swin_lab": "official",
    "mmpretrain": "official",
    "timm": "timm",
    "torchvision": "torchvision",
    "huggingface": "huggingface",
}
"""Layout of a weight file -> whose evaluation its accuracy was published with."""

PRESETS = ("official", "timm", "torchvision", "huggingface")


def preset(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """How an evaluation fits images to a network: resize_mode, crop_pct, interpolation and preset of `Preprocessing`.

    official: shorter side int(256/224 * size), centre crop; from 384 pixels on stretched (its TEST.CROP False).
    timm: the centre crop keeps 0.9 of the shorter side, from 384 pixels on all of it.
    torchvision: shorter side 232, 246 or 238 for 224 pixels and 260, 260 or 272 for 256 (tiny, small, base).
    huggingface: stretched.

    Args:
        name: one of PRESETS.
        config: of the network, see `SwinTransformer`.

    Raises:
        UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"preset={name} is unknown{did_you_mean(str(name), PRESETS)}")
    size = config["img_size"]
    large = (size if isinstance(size, int) else min(size)) >= 384
    resize_mode, crop_pct = "crop", 224 / 256
    if name == "huggingface" or (name == "official" and large):
        resize_mode, crop_pct = "stretch", 1.0
    elif name == "timm":
        crop_pct = 1.0 if large else 0.9
    elif name == "torchvision":
        crop_pct = TORCHVISION_CROP.get((config["version"], config["embed_dim"], sum(config["depths"])), crop_pct)
    return {"resize_mode": resize_mode, "crop_pct": crop_pct, "interpolation": "bicubic", "preset": name}


def published_preprocessing(
    layout: str, config: dict[str, Any], beside: dict[str, Any], preprocessor: dict[str, Any]
) -> dict[str, Any]:
    """As a checkpoint of this project describes it: see `swin_lab.data.Preprocessing`.

    Args:
        layout: name of the file's layout.
        config: of the network, see `SwinTransformer`.
        beside: config.json of the file's folder, {} if there is none; timm's says more in `pretrained_cfg`.
        preprocessor: preprocessor_config.json of a transformers folder, {} if there is none.
    """
    given: int | Sequence[int] = config["img_size"]
    size = [given, given] if isinstance(given, int) else list(given)
    told = beside.get("pretrained_cfg") or {}
    fitted = preset(PRESET_OF.get(layout, "official"), config)
    if {"crop_pct", "interpolation"} & set(told):
        fitted |= {"crop_pct": told.get("crop_pct", fitted["crop_pct"]), "preset": None}
        stretched = told.get("crop_mode") == "squash"
        fitted |= {"interpolation": told.get("interpolation", "bicubic"), "resize_mode": "stretch" if stretched else "crop"}
    return {
        "img_size": size,
        "channels": config["in_channels"],
        **fitted,
        **dict(zip(("mean", "std"), _statistics(config["in_channels"], told, preprocessor), strict=True)),
    }


def _statistics(channels: int, told: dict[str, Any], preprocessor: dict[str, Any]) -> tuple[list[float], list[float]]:
    mean = list(told.get("mean") or preprocessor.get("image_mean") or IMAGENET_MEAN)
    std = list(told.get("std") or preprocessor.get("image_std") or IMAGENET_STD)
    if channels == len(mean):
        return mean, std
    return [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels
