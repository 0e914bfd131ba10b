"""The evaluation preprocessing of the official code and of each library, by name (a preset)."""

from collections.abc import Mapping
from typing import Any

from swin_lab.errors import UserError, did_you_mean
from swin_lab.models import SwinConfig
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

TORCHVISION_CROP = {
    (1, 96, 12): 224 / 232,
    (1, 96, 24): 224 / 246,
    (1, 128, 24): 224 / 238,
    (2, 96, 12): 256 / 260,
    (2, 96, 24): 256 / 260,
    (2, 128, 24): 256 / 272,
}
"""crop_pct of torchvision's swin_t, swin_s, swin_b and swin_v2_*, by version, embed_dim and number of blocks."""


PRESET_OF = {
    "official": "official",
    "swin_lab": "official",
    "mmpretrain": "official",
    "timm": "timm",
    "torchvision": "torchvision",
    "huggingface": "huggingface",
}
"""Layout of a weight file -> the preset with which the accuracy of such files was published."""

PRESETS = ("official", "timm", "torchvision", "huggingface")


def check_preset(name: str) -> None:
    """Raises UserError if no preset has this name."""
    if name not in PRESETS:
        raise UserError(f"preset={name} is unknown{did_you_mean(str(name), PRESETS)}")


def preset_preprocessing(name: str, config: SwinConfig) -> dict[str, Any]:
    """Returns the fields of `Preprocessing` that differ between published evaluations, and the name of the preset.

    official: resizes the shorter side to int(256/224 * size) and crops the centre; stretches from 384 pixels (TEST.CROP False).
    timm: crops the centre with crop_pct 0.9, from 384 pixels with 1.0.
    torchvision: resizes the shorter side to 232, 246 or 238 for 224 pixels and 260, 260 or 272 for 256 (tiny, small, base).
    huggingface: stretches; it alone rotates images as their EXIF orientation says (`transformers.image_utils.load_image`).

    Args:
        name: one of PRESETS.
        config: hyper-parameters of the network.

    Raises:
        UserError: the preset is unknown.
    """
    check_preset(name)
    large = min(config.image_size) >= 384
    resize_mode, crop_pct = "crop", 224 / 256
    if name == "huggingface" or (name == "official" and large):
        resize_mode, crop_pct = "stretch", 1.0
    elif name == "timm":
        crop_pct = 1.0 if large else 0.9
    elif name == "torchvision":
        crop_pct = TORCHVISION_CROP.get((config.version, config.embed_dim, sum(config.depths)), crop_pct)
    resizing: dict[str, Any] = {"resize_mode": resize_mode, "crop_pct": crop_pct, "interpolation": "bicubic"}
    return resizing | {"preset": name, "exif_orientation": name == "huggingface"}


def published_preprocessing(
    layout: str, config: SwinConfig, sidecar: Mapping[str, Any], preprocessor: Mapping[str, Any]
) -> Preprocessing | None:
    """Returns the preprocessing with which the accuracy of a file was published.

    Args:
        layout: name of the file's layout.
        config: hyper-parameters of the network.
        sidecar: config.json of the file's folder, {} if there is none; that of timm has more in `pretrained_cfg`.
        preprocessor: preprocessor_config.json of a transformers folder, {} if there is none.

    Returns:
        The preprocessing. If None, the network takes neither RGB nor greyscale images.

    Raises:
        UserError: the sidecar files contain invalid values.
    """
    published = sidecar.get("pretrained_cfg")
    hints = published if isinstance(published, dict) else {}
    resizing = preset_preprocessing(PRESET_OF.get(layout, "official"), config)
    if {"crop_pct", "interpolation"} & set(hints):
        resizing |= {"crop_pct": hints.get("crop_pct", resizing["crop_pct"]), "preset": None}
        stretched = hints.get("crop_mode") == "squash"
        resizing |= {"interpolation": hints.get("interpolation", "bicubic"), "resize_mode": "stretch" if stretched else "crop"}
    if config.in_channels not in (1, 3):
        return None
    mean = hints.get("mean") or preprocessor.get("image_mean") or IMAGENET_MEAN
    std = hints.get("std") or preprocessor.get("image_std") or IMAGENET_STD
    return Preprocessing.for_data(img_size=config.image_size, channels=config.in_channels, mean=mean, std=std, **resizing)


def adapted_preprocessing(preprocessing: Preprocessing | None, config: SwinConfig) -> Preprocessing | None:
    """Returns a checkpoint's preprocessing for the image size and channels of another network.

    Args:
        preprocessing: that of the checkpoint, if it has one.
        config: hyper-parameters of the network.

    Returns:
        The preprocessing. If None, the checkpoint has none, or the network takes neither RGB nor greyscale images.
    """
    if preprocessing is None or config.in_channels not in (1, 3):
        return None
    changed: dict[str, Any] = {"img_size": config.image_size, "channels": config.in_channels}
    if config.in_channels != preprocessing.channels:
        for key in ("mean", "std"):
            values: tuple[float, ...] = getattr(preprocessing, key)
            changed[key] = (sum(values) / len(values),) * config.in_channels
    if preprocessing.preset:  # A preset depends on the image size.
        changed |= preset_preprocessing(preprocessing.preset, config)
        changed["exif_orientation"] = preprocessing.exif_orientation  # Older versions rotated images for every preset.
    return Preprocessing.from_dict(preprocessing.as_dict() | changed)
