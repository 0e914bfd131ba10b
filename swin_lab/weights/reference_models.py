"""Reference models: the same network built by the library of a layout, to verify that both compute the same logits."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.models import SwinTransformer
from swin_lab.weights.layouts import HUGGINGFACE_5, LAYOUTS, layout_to_write
from swin_lab.weights.save import refuse_inexpressible, to_layout, transformers_config

LIBRARIES = {"timm": "timm", "torchvision": "torchvision", "huggingface": "transformers"}
"""Layout -> the package that reads it. The official code and mmpretrain cannot be installed together with swin_lab."""

TRANSFORMERS_STATE_DICT = next(layout for layout in LAYOUTS if layout.rows is HUGGINGFACE_5)


def largest_difference(model: SwinTransformer, layout: str) -> tuple[float, str]:
    """Runs a model and its reference model with the same weights on the same random images.

    Args:
        model: the native model.
        layout: one of `LIBRARIES`.

    Returns:
        The largest absolute difference of their logits in fp32, and the reference library with its version.

    Raises:
        UserError: the library is not installed, or cannot express the model.
    """
    from importlib.metadata import version

    package = LIBRARIES[layout]
    if find_spec(package) is None:
        raise UserError(f"layout {layout} is verified with {package}, which is not installed: pip install {package}")
    refuse_inexpressible(model, layout)
    reference = build_reference_model(model, layout)
    image = torch.randn(2, model.config.in_channels, *model.config.image_size, generator=torch.Generator().manual_seed(0))
    was_training = model.training
    with torch.no_grad():
        difference = (model.eval()(image) - logits_of(reference.eval(), image)).abs().max().item()
    model.train(was_training)
    return difference, f"{package} {version(package)}"


def build_reference_model(model: SwinTransformer, layout: str) -> nn.Module:
    """Builds the reference model with the model's weights; loading is strict, so that every tensor is filled."""
    reference = BUILDERS[layout](model)
    has_other_keys = (
        layout == "huggingface" and model.config.version == 1
    )  # The names in its files differ from those of its state_dict.
    chosen = TRANSFORMERS_STATE_DICT if has_other_keys else layout_to_write(layout, model.config.version)
    tensors = to_layout(model, chosen)
    reference.load_state_dict(tensors, strict=True)
    return reference


def logits_of(model: nn.Module, image: Tensor) -> Tensor:
    """Returns a model's logits, which transformers wraps in an output class."""
    output = model(image)
    logits: Tensor = output.logits if hasattr(output, "logits") else output
    return logits


def _timm(model: SwinTransformer) -> nn.Module:
    """Builds timm's model."""
    from timm.models import swin_transformer, swin_transformer_v2

    config = model.config
    same = ("patch_size", "num_classes", "embed_dim", "mlp_ratio", "qkv_bias", "drop_path_rate")
    arguments = {key: getattr(config, key) for key in same}
    arguments |= {"img_size": config.image_size, "in_chans": config.in_channels, "depths": config.depths}
    arguments |= {"num_heads": config.num_heads, "window_size": config.windows}
    made: nn.Module
    if config.version == 2:
        made = swin_transformer_v2.SwinTransformerV2(**arguments | {"pretrained_window_sizes": config.pretrained_windows})
        return made
    made = swin_transformer.SwinTransformer(**arguments)
    return made


def _torchvision(model: SwinTransformer) -> nn.Module:
    """Builds torchvision's model."""
    from torchvision.models import swin_transformer as tv

    config = model.config
    own = {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2} if config.version == 2 else {}
    made: nn.Module = tv.SwinTransformer(
        patch_size=[config.patch_size] * 2,
        embed_dim=config.embed_dim,
        depths=list(config.depths),
        num_heads=list(config.num_heads),
        window_size=list(config.windows[0]),
        mlp_ratio=config.mlp_ratio,
        stochastic_depth_prob=config.drop_path_rate,
        num_classes=config.num_classes,
        **own,
    )
    return made


def _transformers(model: SwinTransformer) -> nn.Module:
    """Builds transformers' model."""
    import transformers

    config = transformers_config(model)
    made: nn.Module
    if model.config.version == 2:
        made = transformers.Swinv2ForImageClassification(transformers.Swinv2Config.from_dict(config))
        return made
    made = transformers.SwinForImageClassification(transformers.SwinConfig.from_dict(config))
    return made


BUILDERS: dict[str, Callable[[SwinTransformer], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "huggingface": _transformers,
}
