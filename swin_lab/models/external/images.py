"""Image sizes and preprocessing of other libraries, in the form of swin_lab."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing

log = logging.getLogger("swin_lab.models")


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
    values["exif_orientation"] = library == "huggingface"  # timm and torchvision read an image with convert("RGB") alone.
    return Preprocessing.from_dict({"img_size": img_size, "channels": channels, "preset": library, **values})


def warn_that_it_cannot_be_expressed(name: str, reason: str) -> None:
    """Warns that evaluations use the data's settings, because those of the library have no equivalent here."""
    log.warning("the preprocessing of %s %s, which data.* cannot express; the settings of data.* are used", name, reason)


def check_model(model: nn.Module, label: str, img_size: tuple[int, int], channels: int, num_classes: int) -> None:
    """Classifies one black image in evaluation mode, so that a model that does not take such images is refused at construction.

    Args:
        model: a model whose parameters have values; one on the meta device is not checked.
        label: name and library of the model, for messages.
        img_size: (height, width) in pixels.
        channels: channels of the images.
        num_classes: number of logits.

    Raises:
        UserError: the model fails, or does not give logits (1, num_classes).
    """
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.is_meta:
        return
    training = model.training
    try:
        with torch.no_grad():
            output: Any = model.eval()(torch.zeros(1, channels, *img_size, dtype=parameter.dtype, device=parameter.device))
    except Exception as error:  # Libraries raise errors of every class for images that their layers do not fit.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{label} does not classify images of {img_size[0]}x{img_size[1]} pixels and {channels} channels: {reason}\n"
            "Choose another model.img_size, or a model that takes images alone"
        ) from error
    finally:
        model.train(training)
    if not isinstance(output, Tensor) or output.shape != (1, num_classes):
        found = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise UserError(
            f"{label} is not a classifier: it returns {found} instead of logits {(1, num_classes)}; choose another model"
        )
