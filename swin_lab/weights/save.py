"""Writes a model in the layout of any library."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from swin_lab.errors import UserError, did_you_mean
from swin_lab.imagenet import ROWS_1K, ROWS_22K, words
from swin_lab.metadata import METADATA_KEY, Metadata
from swin_lab.models import SwinConfig, SwinTransformer
from swin_lab.models.lora import plain_state
from swin_lab.ops.geometry import fit_window, log_spaced_offsets, relative_position_index, shift_mask
from swin_lab.preprocessing import Preprocessing
from swin_lab.weights.layouts import LAYOUT_NAMES, Layout, layout_to_write
from swin_lab.weights.packing import Tensors
from swin_lab.weights.source_config import NETWORK_CLASS

WITH_DERIVED = ("official", "torchvision", "mmpretrain")
"""Layouts whose own models store indices, coordinates or masks in their files."""

WRAPPED = {"official": "model", "mmpretrain": "state_dict", "swin_lab": "state_dict"}
"""Layout -> key of the weights in its .pth files. Files of other layouts contain the tensors at the top level."""


def save_weights(model: SwinTransformer, path: str | Path, layout: str = "swin_lab") -> Path:
    """Writes a model's weights so that the named library can load them.

    The metadata of a .safetensors file, and of a .pth file of layout swin_lab, contains the model's `config`, `class_names` and
    `preprocessing`: `load_model` then needs nothing else.

    Args:
        model: the model to write.
        path: a new file ending in .safetensors, .pth, .pt or .bin; for layout huggingface a new folder.
        layout: swin_lab, official, timm, torchvision, huggingface or mmpretrain.

    Returns:
        The file or folder written.

    Raises:
        UserError: the layout is unknown or cannot express the model, or the file exists or cannot be written.
    """
    target = Path(path).expanduser().absolute()
    check_target(target, layout)
    refuse_inexpressible(model, layout)
    tensors = to_layout(model, layout_to_write(layout, model.config.version))
    if layout == "huggingface":
        _write_folder(model, tensors, target)
    else:
        write_atomically(target, lambda part: _write_file(model, tensors, layout, target.suffix, part))
    return target


def check_target(target: Path, layout: str) -> None:
    """Raises UserError if the layout is unknown, the target exists, or it has the wrong ending."""
    if layout not in LAYOUT_NAMES:
        raise UserError(f"layout={layout} is unknown{did_you_mean(layout, LAYOUT_NAMES)}")
    if target.exists():
        raise UserError(f"{target} exists already; nothing was written. Remove it or choose another name")
    if layout == "huggingface" and target.suffix in (".safetensors", ".pth", ".pt", ".bin"):
        raise UserError(f"{target.name}: layout huggingface is a folder of config.json and weights; give a name without ending")
    if layout != "huggingface" and target.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise UserError(f"{target.name}: choose the ending .safetensors or .pth")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent} is not a folder; create it first")


def keeps_metadata(layout: str, suffix: str) -> bool:
    """Returns whether a file has class names, preprocessing and thresholds besides the weights; a folder has a .safetensors."""
    return layout in ("swin_lab", "huggingface") or suffix == ".safetensors"


def to_layout(model: SwinTransformer, layout: Layout) -> Tensors:
    """Returns a model's tensors with the names and packing of a layout, and the derived ones that its files contain."""
    last = len(model.stages) - 1
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in plain_state(model).items()}
    derived = _derived(model, layout.name) if layout.name in WITH_DERIVED else {}
    return {layout.to_library(name, last): tensor for name, tensor in (layout.write(own) | derived).items()}


def refuse_inexpressible(model: SwinTransformer, layout: str) -> None:
    """Raises UserError, with the reason, if a library's Swin Transformer cannot express this model."""
    if (why := inexpressible(model.config, layout)) is not None:
        other = "timm" if model.config.token_mixer == "attention" else "official"
        choices = "swin_lab" if layout == other else f"swin_lab or {other}"
        raise UserError(f"layout {layout} cannot express this model: {why}. Choose layout {choices}")


def inexpressible(config: SwinConfig, layout: str) -> str | None:
    """Returns why a library's Swin Transformer cannot have these hyper-parameters, or None if it can."""
    windows, pixels = set(config.windows), config.image_size
    nominal = (max(h for h, _ in windows), max(w for _, w in windows))
    why = None
    if config.token_mixer == "mlp" and layout not in ("swin_lab", "official"):
        why = "it has no Swin-MLP"
    elif layout == "torchvision":
        if len(windows) > 1:
            why = f"it has one window for all stages, this model {sorted(windows)}"
        elif config.pretrained_windows != config.windows:
            why = "its V2 has no pretrained_window_sizes"
        elif config.in_channels != 3:
            why = f"it takes 3 input channels, this model {config.in_channels}"
        elif not config.qkv_bias:
            why = "its attention always has a bias"
    elif layout in ("huggingface", "mmpretrain", "official"):
        fitted = tuple((min(nominal[0], H), min(nominal[1], W)) for H, W in config.maps)
        if nominal[0] != nominal[1] or fitted != config.windows:
            why = f"it has one square window, shrunk only to the map; this model has {list(config.windows)} at {pixels} pixels"
    if why is None and config.num_classes == 0 and layout == "torchvision":
        why = "its model always has a head"
    return why


def metadata_of(model: SwinTransformer) -> dict[str, Any]:
    """Returns the metadata that is written with a model, plain Python."""
    node = {"_target_": NETWORK_CLASS, **model.config.as_dict()}
    thresholds = model.thresholds if model.class_names is not None else None
    names, preprocessing = model.class_names, model.preprocessing
    return Metadata(model=node, class_names=names, preprocessing=preprocessing, thresholds=thresholds).as_dict()


def _derived(model: SwinTransformer, layout: str) -> dict[str, Tensor]:
    """Returns, under native names, the buffers that the layout's own models store, for the model's `img_size`."""
    config = model.config
    found: dict[str, Tensor] = {}
    if config.token_mixer == "mlp":
        return found
    cpu = torch.device("cpu")
    flat = layout == "torchvision"
    for i in range(len(model.stages)):
        window, map_size = config.windows[i], config.maps[i]
        padded = tuple(-(-side // part) * part for side, part in zip(map_size, window, strict=True))
        for j in range(config.depths[i]):
            block = f"stages.{i}.blocks.{j}."
            index = relative_position_index(window, cpu)
            found[f"{block}attn.relative_position_index"] = (index.flatten() if flat else index).clone()
            if config.version == 2:
                offsets = log_spaced_offsets(window, config.pretrained_windows[i], cpu)
                table = offsets.reshape(1, 2 * window[0] - 1, 2 * window[1] - 1, 2)
                found[f"{block}attn.relative_coords_table"] = table.clone()
            _, shift = fit_window(map_size, window, (window[0] // 2, window[1] // 2) if j % 2 else (0, 0))
            if layout == "official" and shift != (0, 0):
                found[f"{block}attn_mask"] = shift_mask((padded[0], padded[1]), window, shift, cpu).clone()
    return found


def _write_file(model: SwinTransformer, tensors: Tensors, layout: str, suffix: str, part: Path) -> None:
    """Writes tensors to a file, with the model's metadata if the layout allows it."""
    if suffix == ".safetensors":
        metadata = {"format": "pt", METADATA_KEY: json.dumps(metadata_of(model))}
        part.write_bytes(safetensors.torch.save({name: tensor.clone() for name, tensor in tensors.items()}, metadata))
        return
    content: dict[str, Any] = {WRAPPED[layout]: tensors} if layout in WRAPPED else dict(tensors)
    if keeps_metadata(layout, suffix):
        content[METADATA_KEY] = metadata_of(model)
    try:
        with part.open("wb") as file:  # Given a name, torch would raise RuntimeError for a folder that cannot be written.
            torch.save(content, file)
    except RuntimeError as error:  # torch raises it if the disk is full
        raise OSError(str(error).splitlines()[0]) from error


def _write_folder(model: SwinTransformer, tensors: Tensors, target: Path) -> None:
    """Writes a folder that transformers' from_pretrained reads."""
    part = target.with_name(f".{target.name}.part")
    part.mkdir()
    try:
        (part / "config.json").write_text(json.dumps(transformers_config(model), indent=2) + "\n")
        if model.preprocessing is not None:
            (part / "preprocessor_config.json").write_text(json.dumps(_preprocessor(model.preprocessing), indent=2) + "\n")
        _write_file(model, tensors, "huggingface", ".safetensors", part / "model.safetensors")
        part.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        for left in part.glob("*") if part.is_dir() else ():
            left.unlink()
        if part.is_dir():
            part.rmdir()


def transformers_config(model: SwinTransformer) -> dict[str, Any]:
    """Returns config.json of transformers' SwinForImageClassification, or Swinv2ForImageClassification."""
    config, version = model.config, model.config.version
    names = model.class_names or [f"LABEL_{i}" for i in range(config.num_classes)]
    labels = [words(name) for name in names] if len(names) in (ROWS_1K, ROWS_22K) else names
    pretrained = [max(window) for window in config.pretrained_windows] if config.pretrained_windows != config.windows else None
    return {
        "architectures": [f"Swin{'v2' if version == 2 else ''}ForImageClassification"],
        "model_type": "swinv2" if version == 2 else "swin",
        "image_size": config.image_size[0] if config.image_size[0] == config.image_size[1] else list(config.image_size),
        "patch_size": config.patch_size,
        "num_channels": config.in_channels,
        "embed_dim": config.embed_dim,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "window_size": max(max(window) for window in config.windows),
        **({"pretrained_window_sizes": pretrained or [0] * len(config.depths)} if version == 2 else {}),
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "drop_path_rate": config.drop_path_rate,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_absolute_embeddings": False,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        **({"problem_type": "multi_label_classification"} if model.thresholds is not None else {}),
    }


def _preprocessor(preprocessing: Preprocessing) -> dict[str, Any]:
    """Returns preprocessor_config.json of transformers."""
    height, width = preprocessing.img_size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}[preprocessing.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def write_atomically(target: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` on a temporary file and renames it: the target is complete or does not exist."""
    part = target.with_name(f".{target.name}.part")
    try:
        write(part)
        os.replace(part, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
