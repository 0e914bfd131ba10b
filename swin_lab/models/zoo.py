"""Models by name. The table of variants is the folder of YAML files that training reads as well: conf/model."""

from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

from omegaconf import OmegaConf

from swin_lab.errors import UserError, did_you_mean
from swin_lab.models.shape import Windows
from swin_lab.models.swin import SwinTransformer
from swin_lab.paths import CONF

PUBLISHED_CLASSES = 1000
"""Head of a model made by name alone: ImageNet-1k."""


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` and `model=` on the command line accept, sorted; `pattern` is a shell wildcard."""
    names = sorted(file.stem for file in (CONF / "model").glob("swin*.yaml"))
    return [name for name in names if fnmatch(name, pattern) and not name.startswith("_")]


def create_model(
    name: str,
    *,
    version: int | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    img_size: int | Sequence[int] | None = None,
    patch_size: int | None = None,
    embed_dim: int | None = None,
    depths: Sequence[int] | None = None,
    num_heads: Sequence[int] | None = None,
    window_size: Windows | None = None,
    pretrained_window_sizes: Windows | None = None,
    mlp_ratio: float | None = None,
    qkv_bias: bool | None = None,
    drop_path_rate: float | None = None,
    activation_checkpointing: bool | None = None,
    attention_backend: str | None = None,
) -> SwinTransformer:
    """Makes a randomly initialised model of a variant.

    Args:
        name: one of `list_models()`, such as "swin_tiny_patch4_window7_224".
        version: and all that follow: as in `SwinTransformer`; None keeps the variant's own value (1000 classes).

    Raises:
        UserError: no variant has that name, or the numbers do not fit each other.
    """
    given = {
        "version": version,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "img_size": img_size,
        "patch_size": patch_size,
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": num_heads,
        "window_size": window_size,
        "pretrained_window_sizes": pretrained_window_sizes,
        "mlp_ratio": mlp_ratio,
        "qkv_bias": qkv_bias,
        "drop_path_rate": drop_path_rate,
        "activation_checkpointing": activation_checkpointing,
        "attention_backend": attention_backend,
    }
    return SwinTransformer(**model_config(name) | {key: value for key, value in given.items() if value is not None})


def model_config(name: str) -> dict[str, Any]:
    """The arguments of `SwinTransformer` for a variant, as plain Python; its `num_classes` is ImageNet-1k's.

    Raises:
        UserError: no variant has that name.
    """
    if name not in list_models():
        raise UserError(f"model {name!r} is unknown{did_you_mean(name, list_models())}")
    config = _read(name)
    del config["_target_"]
    return config | {"num_classes": PUBLISHED_CLASSES}


def _read(name: str) -> dict[str, Any]:
    """A file of conf/model on top of the files its `defaults` list names, as Hydra composes them."""
    own = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"))
    assert isinstance(own, dict)
    config: dict[str, Any] = {}
    for base in own.pop("defaults", []):
        config |= _read(base) if base != "_self_" else {}
    return config | {str(key): value for key, value in own.items()}
