"""Image sizes and preprocessing of other libraries, in the form of swin_lab."""

import logging
from collections.abc import Sequence
from typing import Any

from swin_lab.preprocessing import Preprocessing
from swin_lab.validation import PositiveInt

log = logging.getLogger("swin_lab.models")

ImageSize = PositiveInt | tuple[PositiveInt, PositiveInt]
"""Side of a square, or (height, width), in pixels."""


def height_and_width(img_size: int | Sequence[int]) -> tuple[int, int]:
    """Returns (height, width) of an image size that is given as one number or as two."""
    return (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])


def crop_fraction(crop: int, resized: int) -> float:
    """Returns the crop_pct of a centre crop, such that int(crop / crop_pct) is the side before the crop in floating point."""
    fraction = crop / resized
    return fraction if int(crop / fraction) == resized else crop / (resized + 0.5)


def library_preprocessing(
    library: str,
    img_size: tuple[int, int],
    channels: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    crop_pct: float | None,
) -> Preprocessing:
    """Builds the preprocessing that a library defines for a model.

    Args:
        library: name of the library, which becomes the name of the preset.
        img_size: (height, width) in pixels.
        channels: 1 or 3; the statistics are averaged for 1.
        mean: per channel, of values from 0 to 1.
        std: per channel, of values from 0 to 1.
        interpolation: nearest, bilinear, bicubic or lanczos.
        crop_pct: fraction of the resized side that the centre crop keeps. If None, images are stretched to `img_size`.

    Raises:
        UserError: A value is out of range.
    """
    if len(mean) != channels:
        mean, std = ([sum(values) / len(values)] * channels for values in (mean, std))
    values: dict[str, Any] = {"interpolation": interpolation, "mean": tuple(mean), "std": tuple(std)}
    if crop_pct is None:
        values |= {"crop_pct": 1.0, "resize_mode": "stretch"}
    else:
        values |= {"crop_pct": crop_pct, "resize_mode": "crop"}
    return Preprocessing.from_dict({"img_size": img_size, "channels": channels, "preset": library, **values})


def warn_that_it_cannot_be_expressed(name: str, reason: str) -> None:
    """Warns that evaluations use the data's settings, because those of the library have no equivalent here."""
    log.warning("the preprocessing of %s %s, which data.* cannot express; the settings of data.* are used", name, reason)
