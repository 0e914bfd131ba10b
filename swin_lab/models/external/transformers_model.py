"""Image classifiers of Hugging Face transformers, which is not installed with swin_lab."""

from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.models.config import ImageSize
from swin_lab.models.external.hub import offline_unless_reachable
from swin_lab.models.external.images import (
    check_model,
    crop_fraction,
    height_and_width,
    library_preprocessing,
    warn_that_it_cannot_be_expressed,
)
from swin_lab.preprocessing import Preprocessing
from swin_lab.validation import Expected, Fraction, PositiveInt

DEFAULT_SIZE = 224
"""Image size in pixels if neither the model nor its image processor has one."""

INTERPOLATIONS: dict[int | None, str] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's number of a filter -> its name."""

CONVNEXT_STRETCHES_FROM = 384
"""Shorter side in pixels from which the image processor of ConvNeXT stretches images instead of cropping them."""


class TransformersModel(nn.Module):
    """Builds an image classifier of transformers, with its head replaced for the number of classes.

    No code from the hub or the folder is executed.

    Args:
        name: id of a model on the hub, such as facebook/convnext-tiny-224, or a folder with its config.json.
        num_classes: number of logits.
        img_size: size of the images in pixels. If None, that of the image processor or of config.json.
        pretrained: whether to load the weights. If false, only config.json and preprocessor_config.json are read.
        drop_path_rate: highest drop path rate. If None, that of config.json.

    Raises:
        UserError: transformers is not installed, the model cannot be fetched or is not an image classifier, or it does not
            support an argument.
    """

    def __init__(
        self,
        name: Annotated[str, Expected("the name of a model of transformers, such as facebook/convnext-tiny-224")],
        num_classes: PositiveInt,
        *,
        img_size: ImageSize | None = None,
        pretrained: bool = False,
        drop_path_rate: Fraction | None = None,
    ) -> None:
        super().__init__()
        if find_spec("transformers") is None:
            raise UserError(f"model.name={name} needs the package transformers: pip install transformers")
        source = _folder_or_id(name)
        with nullcontext() if Path(source).is_dir() else offline_unless_reachable():
            config = _read_config(source)
            processor = _read_processor(source)
        config.num_labels = num_classes
        self.name = name
        self.in_channels: int = getattr(config, "num_channels", 3)
        self.img_size = _image_size(img_size, config, processor)
        if img_size is not None and hasattr(config, "image_size"):
            config.image_size = self.img_size if self.img_size[0] != self.img_size[1] else self.img_size[0]
        if drop_path_rate is not None:
            if not hasattr(config, "drop_path_rate"):
                raise UserError(f"model.drop_path_rate={drop_path_rate} is not supported by {name}, a {config.model_type}")
            config.drop_path_rate = drop_path_rate
        with nullcontext() if Path(source).is_dir() or not pretrained else offline_unless_reachable():
            self.model = _load(source, config) if pretrained else _create(source, config)
        check_model(self, f"{name} of transformers", self.img_size, self.in_channels, num_classes)
        self.preprocessing = _preprocessing(name, processor, self.img_size, self.in_channels)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Maps images (B, in_channels, H, W) to logits (B, num_classes)."""
        return self.model(pixel_values=image_BCHW).logits


def _folder_or_id(name: str) -> str:
    """Returns the path of a folder with config.json, or the id of a model on the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"model.name={name} has no config.json; give a folder that transformers has saved")
        return str(folder)
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or ("/" in name and folder.parent.is_dir()):
        raise UserError(f"model.name={name} is not a folder; give a folder with config.json, or OWNER/NAME on the hub")
    return name


def _read_config(name: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(_not_available(name, error)) from error


def _read_processor(name: str) -> dict[str, Any] | None:
    """Returns the configuration of the image processor, or None if there is none."""
    from transformers import AutoImageProcessor

    try:
        processor: dict[str, Any] = AutoImageProcessor.from_pretrained(name, trust_remote_code=False).to_dict()
    except (OSError, ValueError):  # The model has no image processor.
        return None
    return processor


def _create(name: str, config: Any) -> nn.Module:
    """Builds a randomly initialised model."""
    from transformers import AutoModelForImageClassification

    try:
        model: nn.Module = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    except ValueError as error:
        if "Unrecognized configuration class" in str(error):
            raise UserError(f"model.name={name}: a {config.model_type} of transformers is not an image classifier") from error
        raise UserError(f"model.name={name} cannot be built: {error}") from error
    return model


def _load(name: str, config: Any) -> nn.Module:
    """Loads the weights; only those of the head may be missing or have other shapes."""
    from transformers import AutoModelForImageClassification, logging

    head = _head_keys(name, config)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # from_pretrained prints a report of the tensors that are checked below.
    try:
        model, loading = AutoModelForImageClassification.from_pretrained(
            name, config=config, ignore_mismatched_sizes=True, output_loading_info=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise UserError(_not_available(name, error)) from error
    finally:
        logging.set_verbosity(verbosity)
    mismatched = sorted({key for key, *_ in loading["mismatched_keys"]} - head)
    if mismatched:
        raise UserError(
            f"model.pretrained=true: {mismatched[0]} of {name} has another shape; "
            "remove model.img_size, or set model.pretrained=false"
        )
    missing = sorted(set(loading["missing_keys"]) - head)
    if missing:
        raise UserError(f"model.pretrained=true: the weights of {name} have no {missing[0]}; set model.pretrained=false")
    loaded: nn.Module = model
    return loaded


def _head_keys(name: str, config: Any) -> set[str]:
    """Returns the names of the tensors whose shapes depend on the number of classes."""
    num_classes, shapes = config.num_labels, []
    for count in (num_classes, num_classes + 1):
        config.num_labels = count
        with torch.device("meta"):
            shapes.append({key: tensor.shape for key, tensor in _create(name, config).state_dict().items()})
    config.num_labels = num_classes
    return {key for key, shape in shapes[0].items() if shape != shapes[1][key]}


def _not_available(name: str, error: Exception) -> str:
    return (
        f"model.name={name} cannot be read by transformers: {str(error).splitlines()[0]}\n"
        "Check the name and the network connection, or download the model and give its folder"
    )


def _image_size(img_size: ImageSize | None, config: Any, processor: dict[str, Any] | None) -> tuple[int, int]:
    if img_size is not None:
        return height_and_width(img_size)
    if processor is not None:
        size = processor["crop_size"] if processor.get("do_center_crop") else processor.get("size")
        if size and size.get("height"):
            return size["height"], size["width"]
        if size and size.get("shortest_edge"):
            return size["shortest_edge"], size["shortest_edge"]
    return height_and_width(getattr(config, "image_size", None) or DEFAULT_SIZE)


def _preprocessing(
    name: str, processor: dict[str, Any] | None, img_size: tuple[int, int], channels: int
) -> Preprocessing | None:
    """Converts the configuration of an image processor. If there is none or `Preprocessing` cannot express it, returns None."""
    if processor is None:
        return None
    interpolation = INTERPOLATIONS.get(processor.get("resample"))
    size, crop = processor.get("size") or {}, processor.get("crop_size") or {}
    side = size.get("shortest_edge")
    unknown = [key for key in ("do_flip_channel_order", "rescale_offset", "do_pad") if processor.get(key)]
    if unknown or interpolation is None or not processor.get("do_resize") or channels not in (1, 3):
        warn_that_it_cannot_be_expressed(name, f"has {unknown[0] if unknown else 'an unusual resize'}")
        return None
    crop_pct: float | None
    if size.get("height") and (not processor.get("do_center_crop") or crop == size):
        crop_pct = None
    elif side and processor.get("crop_pct"):
        crop_pct = processor["crop_pct"] if min(img_size) < CONVNEXT_STRETCHES_FROM else None
    elif side and processor.get("do_center_crop") and crop.get("height") == crop.get("width") and crop["height"] <= side:
        crop_pct = crop_fraction(crop["height"], side)
    else:
        warn_that_it_cannot_be_expressed(name, f"has size={size} and crop_size={crop}")
        return None
    normalized = processor.get("do_normalize")
    mean, std = (processor["image_mean"], processor["image_std"]) if normalized else ([0.0] * channels, [1.0] * channels)
    return library_preprocessing("huggingface", img_size, channels, mean, std, interpolation, crop_pct)
