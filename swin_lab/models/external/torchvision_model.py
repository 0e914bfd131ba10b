"""Image classifiers of torchvision."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torchvision import models

from swin_lab.errors import UserError, did_you_mean
from swin_lab.models.config import ImageSize
from swin_lab.models.external.images import check_model, crop_fraction, height_and_width, library_preprocessing
from swin_lab.validation import Expected, PositiveInt

SIZE_ARGUMENTS = {"vit_": "image_size", "maxvit_": "input_size"}
"""Beginning of the names of models that are built for one image size -> their argument for it."""

AUXILIARY = ("googlenet", "inception_v3")
"""Models with further heads for training, which are left out: they would return several logits."""


class TorchvisionModel(nn.Module):
    """Builds a model of torchvision, with its head replaced for the number of classes.

    Args:
        name: architecture, such as convnext_tiny.
        num_classes: number of logits.
        img_size: size of the images in pixels. If None, that of the published weights.
        pretrained: whether to load the published weights (the latest version), from torch's cache or over the network.

    Raises:
        UserError: torchvision has no such model, the weights cannot be fetched, or the model does not support the image size.
    """

    def __init__(
        self,
        name: Annotated[str, Expected("the name of a model of torchvision, such as convnext_tiny")],
        num_classes: PositiveInt,
        *,
        img_size: ImageSize | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        choices = models.list_models(module=models)
        if name not in choices:
            raise UserError(f"model.name={name} is not a classifier of torchvision{did_you_mean(name, choices)}")
        evaluation = models.get_model_weights(name).DEFAULT.transforms()
        published_size = height_and_width(evaluation.crop_size[0])
        size = published_size if img_size is None else height_and_width(img_size)
        self.name = name
        self.img_size = size
        self.in_channels = 3
        self.model = _create(name, num_classes, size if size != published_size else None)
        if pretrained:
            self._replace_by_pretrained(num_classes, published_size)
        check_model(self, f"{name} of torchvision", self.img_size, self.in_channels, num_classes)
        self.preprocessing = library_preprocessing(
            "torchvision",
            size,
            self.in_channels,
            evaluation.mean,
            evaluation.std,
            evaluation.interpolation.value,
            crop_fraction(evaluation.crop_size[0], evaluation.resize_size[0]),
        )

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Maps images (B, 3, H, W) to logits (B, num_classes)."""
        return self.model(image_BCHW)

    def _replace_by_pretrained(self, num_classes: int, published_size: tuple[int, int]) -> None:
        """Replaces the new model by the pretrained one, except for the head if the number of classes differs."""
        new = self.model
        if self.img_size != published_size and self.name.startswith(tuple(SIZE_ARGUMENTS)):
            raise UserError(
                f"model.img_size={list(self.img_size)}: the pretrained weights of {self.name} are for "
                f"{list(published_size)} only; leave model.img_size out, or set model.pretrained=false"
            )
        try:
            self.model = models.get_model(self.name, weights="DEFAULT", **_without_auxiliary_heads(self.name))
        except OSError as error:
            url = models.get_model_weights(self.name).DEFAULT.url
            raise UserError(
                f"model.pretrained=true: the weights of {self.name} cannot be fetched: {error}\n"
                f"Download {url}\ninto {torch.hub.get_dir()}/checkpoints, or set model.pretrained=false"
            ) from error
        loaded = self.model.state_dict()
        head = {key.rpartition(".")[0] for key, value in new.state_dict().items() if value.shape != loaded[key].shape}
        for module in head:
            self.model.set_submodule(module, new.get_submodule(module))


def _create(name: str, num_classes: int, img_size: tuple[int, int] | None) -> nn.Module:
    """Builds a randomly initialised model; `img_size` is None for the size of the published weights."""
    arguments: dict[str, Any] = _without_auxiliary_heads(name)
    if arguments:
        arguments["init_weights"] = True  # torchvision warns unless it is given
    for prefix, argument in SIZE_ARGUMENTS.items():
        if img_size is not None and name.startswith(prefix):
            arguments[argument] = img_size if argument == "input_size" else img_size[0]
            if argument == "image_size" and img_size[0] != img_size[1]:
                raise UserError(f"model.img_size={list(img_size)} must be square for {name} of torchvision")
    try:
        return models.get_model(name, num_classes=num_classes, **arguments)
    except (AssertionError, ValueError, RuntimeError) as error:
        if img_size is None:
            raise
        raise UserError(f"model.img_size={list(img_size)} is not supported by {name} of torchvision: {error}") from error


def _without_auxiliary_heads(name: str) -> dict[str, Any]:
    return {"aux_logits": False} if name in AUXILIARY else {}
