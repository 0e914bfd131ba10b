"""Weights that are in memory: the tensors of a state dict, or of a model of any library, as the contents of a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from swin_lab.metadata import METADATA_KEY, Metadata
from swin_lab.models import SwinTransformer
from swin_lab.models.lora import plain_state
from swin_lab.weights.adapters import add_adapters
from swin_lab.weights.files import Contents
from swin_lab.weights.save import metadata_of

WRAPPERS = ("_orig_mod", "module", "model")
"""Attributes in which torch.compile, DistributedDataParallel and the adapters of swin_lab.models.external hold a model."""

WINDOW_BUFFERS = (".attn.relative_position_index", ".relative_coords_table")
"""Ends of the names of buffers from which windows are read; timm and transformers do not store them in a state dict."""


def contents_of(source: Mapping[str, Any] | nn.Module) -> Contents:
    """Returns tensors and description of a state dict, of the contents of a weight file, or of a model.

    Args:
        source: a dict, possibly nested as in a file; or a model of swin_lab, timm, torchvision or transformers.

    Raises:
        UserError: the dict contains metadata of swin_lab that are damaged.
    """
    if not isinstance(source, nn.Module):
        label = "the given state dict"
        metadata = Metadata.from_dict(source[METADATA_KEY], label) if METADATA_KEY in source else None
        state, metadata, lora = add_adapters(label, dict(source), metadata)
        return Contents(Path(label), state, metadata, source=label, lora=lora)
    model = _unwrapped(source)
    label = f"the given {type(model).__name__}"
    if isinstance(model, SwinTransformer):
        return Contents(Path(label), plain_state(model), Metadata.from_dict(metadata_of(model), label), source=label)
    derived = {name: buffer for name, buffer in model.named_buffers() if name.endswith(WINDOW_BUFFERS)}
    tensors = derived | model.state_dict()
    return Contents(Path(label), tensors, None, _description(model), source=label)


def _unwrapped(model: nn.Module) -> nn.Module:
    inner = next((part for name in WRAPPERS if isinstance(part := getattr(model, name, None), nn.Module)), None)
    return model if inner is None else _unwrapped(inner)


def _description(model: nn.Module) -> dict[str, Any]:
    """Returns what a model tells about itself, in the form of the config.json of its library; {} if it tells nothing."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_json_string"):  # transformers
        described: dict[str, Any] = json.loads(config.to_json_string())
        return described
    published: Any = getattr(model, "pretrained_cfg", None)  # timm
    if not isinstance(published, dict):
        return {}
    embedding: Any = getattr(model, "patch_embed", None)
    size = getattr(embedding, "img_size", None)
    layers: Any = getattr(model, "layers", ())
    windows = [list(layer.blocks[0].attn.window_size) for layer in layers if _has_window(layer)]
    sizes = {"image_size": list(size), "window_size": windows} if size and windows else {}
    return {"pretrained_cfg": dict(published)} | sizes


def _has_window(layer: Any) -> bool:
    return hasattr(layer, "blocks") and hasattr(layer.blocks[0], "attn")
