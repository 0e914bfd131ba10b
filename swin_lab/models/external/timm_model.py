"""Image classifiers of timm."""

from functools import cached_property
from typing import Annotated, Any, Literal

import timm
from timm.data.config import resolve_model_data_config
from timm.models import get_pretrained_cfg, group_parameters
from torch import Tensor, nn

from swin_lab.errors import UserError, did_you_mean
from swin_lab.models.config import ImageSize
from swin_lab.models.external.hub import offline_unless_reachable
from swin_lab.models.external.images import (
    check_model,
    height_and_width,
    library_preprocessing,
    warn_that_it_cannot_be_expressed,
)
from swin_lab.preprocessing import Preprocessing
from swin_lab.validation import Expected, Fraction, PositiveInt


class TimmModel(nn.Module):
    """Builds a model of timm, with its head replaced for the number of classes.

    Args:
        name: architecture, such as convnext_tiny, or architecture and tag of its weights, such as convnext_tiny.in12k_ft_in1k.
        num_classes: number of logits.
        img_size: size of the images in pixels. If None, that of the published weights.
        in_channels: channels of the images, 1 or 3.
        pretrained: whether to load the published weights, from timm's cache or over the network.
        drop_path_rate: highest drop path rate. If None, timm's default.

    Raises:
        UserError: timm has no such model or weights, the weights cannot be fetched, or the model does not support an argument.
    """

    def __init__(
        self,
        name: Annotated[str, Expected("the name of a model of timm, such as convnext_tiny")],
        num_classes: PositiveInt,
        *,
        img_size: ImageSize | None = None,
        in_channels: Literal[1, 3] = 3,
        pretrained: bool = False,
        drop_path_rate: Fraction | None = None,
    ) -> None:
        super().__init__()
        _check_name(name)
        published = get_pretrained_cfg(name)
        assert published is not None, name  # Every registered model has one.
        size = height_and_width(published.input_size[1:] if img_size is None else img_size)
        arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
        if drop_path_rate is not None:
            arguments["drop_path_rate"] = drop_path_rate
        if img_size is not None and published.fixed_input_size:  # Other models accept any size and have no such argument.
            arguments["img_size"] = size
        self.name = name
        self.img_size = size
        self.in_channels = in_channels
        self.model: nn.Module = _create(name, pretrained, arguments)
        check_model(self, f"{name} of timm", self.img_size, self.in_channels, num_classes)
        self.preprocessing = self._preprocessing()

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Maps images (B, in_channels, H, W) to logits (B, num_classes)."""
        return self.model(image_BCHW)

    def embedding(self, image_BCHW: Tensor) -> Tensor:
        """Maps images to what the last linear layer classifies, (B, C): features that the head has pooled and normalised."""
        vectors: Tensor = self.model.forward_head(self.model.forward_features(image_BCHW), pre_logits=True)  # type: ignore[operator]
        return vectors

    def layer_of(self, name: str) -> int:
        """Returns the number of the layer that a parameter of this name belongs to, as timm groups them; 0 is the stem.

        Raises:
            UserError: timm defines no layers for the model.
        """
        return self._layers[name.removeprefix("model.")]

    @cached_property
    def _layers(self) -> dict[str, int]:
        matcher: Any = getattr(self.model, "group_matcher", None)
        if matcher is None:
            raise UserError(f"optimizer.layer_decay: timm defines no layers for {self.name}; set it to null")
        numbers: dict[str, int] = group_parameters(self.model, matcher(coarse=False), reverse=True)
        return numbers

    def _preprocessing(self) -> Preprocessing | None:
        config = resolve_model_data_config(self.model)
        crop_mode, crop_pct = config["crop_mode"], config["crop_pct"]
        if crop_mode == "squash" and crop_pct == 1:
            crop_pct = None
        elif crop_mode != "center" or crop_pct > 1:  # A crop larger than the resized image has a border.
            warn_that_it_cannot_be_expressed(self.name, f"has crop_mode={crop_mode} with crop_pct={crop_pct}")
            return None
        return library_preprocessing(
            "timm", self.img_size, self.in_channels, config["mean"], config["std"], config["interpolation"], crop_pct
        )


def published_classes(name: str) -> int:
    """Returns the number of classes of the published weights of a model of timm.

    Raises:
        UserError: timm has no such model or weights.
    """
    _check_name(name)
    published = get_pretrained_cfg(name)
    assert published is not None, name
    return int(published.num_classes)


def _check_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or ":" in name:
        raise UserError(f"model.name={name} is not a model of timm{did_you_mean(name, timm.list_models())}")
    if tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise UserError(f"model.name={name}: timm has no such weights of {architecture}{did_you_mean(name, tagged)}")


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    if pretrained and not timm.list_pretrained(f"{name}.*" if "." not in name else name):
        raise UserError(f"model.pretrained=true: timm has no weights of {name}; set model.pretrained=false")
    try:
        if not pretrained:
            return timm.create_model(name, **arguments)
        with offline_unless_reachable():
            return timm.create_model(name, pretrained=True, **arguments)
    except TypeError as error:
        for argument in ("drop_path_rate", "img_size"):
            if argument in arguments and argument in str(error):
                raise UserError(f"model.{argument}={arguments[argument]} is not supported by {name} of timm") from error
        raise
    except (AssertionError, ValueError) as error:
        if "img_size" not in arguments:
            raise
        raise UserError(f"model.img_size={arguments['img_size']} is not supported by {name} of timm: {error}") from error
    except OSError as error:
        raise UserError(
            f"model.pretrained=true: the weights of {name} cannot be fetched: {str(error).splitlines()[0]}\n"
            "Run it once with a network connection, after which timm caches them, or set model.pretrained=false"
        ) from error
