"""The same network, built by the library whose layout a file has: for proof that both compute the same."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.models import SwinTransformer
from swin_lab.weights.layouts import HUGGINGFACE_5, LAYOUTS, layout_to_write
from swin_lab.weights.save import refuse_inexpressible, to_layout, transformers_config

LIBRARIES = {"timm": "timm", "torchvision": "torchvision", "huggingface": "transformers"}
"""Package that reads a layout. The official code and mmpretrain are no packages that install beside this one."""

TRANSFORMERS_IN_MEMORY = next(layout for layout in LAYOUTS if layout.rows is HUGGINGFACE_5)


def largest_difference(model: SwinTransformer, layout: str) -> tuple[float, str]:
    """Runs a model and its peer, filled with the model's weights, on the same random images.

    Args:
        model: ours.
        layout: one of `LIBRARIES`.

    Returns:
        The largest absolute difference of their logits in fp32, and the peer's library with its version.

    Raises:
        UserError: the library is not installed, or cannot express the model.
    """
    from importlib.metadata import version

    package = LIBRARIES[layout]
    if find_spec(package) is None:
        raise UserError(f"layout {layout} is verified with {package}, which is not installed: pip install {package}")
    refuse_inexpressible(model, layout)
    peer = build_peer(model, layout)
    image = torch.randn(2, model.shape.in_channels, *model.shape.img_size, generator=torch.Generator().manual_seed(0))
    was_training = model.training
    with torch.no_grad():
        difference = (model.eval()(image) - logits_of(peer.eval(), image)).abs().max().item()
    model.train(was_training)
    return difference, f"{package} {version(package)}"


def build_peer(model: SwinTransformer, layout: str) -> nn.Module:
    """The peer with the model's weights; every tensor of it is filled."""
    peer = BUILDERS[layout](model)
    is_in_memory = layout == "huggingface" and model.config["version"] == 1  # the names of files are others
    chosen = TRANSFORMERS_IN_MEMORY if is_in_memory else layout_to_write(layout, model.config["version"])
    tensors = to_layout(model, chosen)
    peer.load_state_dict(tensors, strict=True)
    return peer


def logits_of(peer: nn.Module, image: Tensor) -> Tensor:
    """transformers wraps them."""
    output = peer(image)
    logits: Tensor = output.logits if hasattr(output, "logits") else output
    return logits


def _timm(model: SwinTransformer) -> nn.Module:
    from timm.models import swin_transformer, swin_transformer_v2

    shape, config = model.shape, model.config
    same = {key: config[key] for key in ("patch_size", "num_classes", "embed_dim", "mlp_ratio", "qkv_bias")}
    same |= {"img_size": shape.img_size, "in_chans": shape.in_channels, "depths": shape.depths}
    same |= {"num_heads": shape.num_heads, "window_size": shape.windows}
    made: nn.Module
    if config["version"] == 2:
        made = swin_transformer_v2.SwinTransformerV2(**same | {"pretrained_window_sizes": shape.trained_windows})
        return made
    made = swin_transformer.SwinTransformer(**same)
    return made


def _torchvision(model: SwinTransformer) -> nn.Module:
    from torchvision.models import swin_transformer as tv

    shape, config = model.shape, model.config
    own = {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2} if config["version"] == 2 else {}
    made: nn.Module = tv.SwinTransformer(
        patch_size=[config["patch_size"]] * 2,
        embed_dim=config["embed_dim"],
        depths=list(shape.depths),
        num_heads=list(shape.num_heads),
        window_size=list(shape.windows[0]),
        mlp_ratio=config["mlp_ratio"],
        num_classes=shape.num_classes,
        **own,
    )
    return made


def _transformers(model: SwinTransformer) -> nn.Module:
    import transformers

    config = transformers_config(model)
    made: nn.Module
    if model.config["version"] == 2:
        made = transformers.Swinv2ForImageClassification(transformers.Swinv2Config.from_dict(config))
        return made
    made = transformers.SwinForImageClassification(transformers.SwinConfig.from_dict(config))
    return made


BUILDERS: dict[str, Callable[[SwinTransformer], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "huggingface": _transformers,
}
