"""Models by name. conf/model is the table of variants, which training reads as well."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from swin_lab.errors import UserError, did_you_mean
from swin_lab.models.config import FIELDS, SwinConfig, Windows
from swin_lab.models.drop_path import DropPathMode
from swin_lab.models.swin import SwinTransformer
from swin_lab.paths import CONF

SWIN = "swin_lab.models.SwinTransformer"
"""`_target_` of the Swin Transformers in conf/model."""


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names that `create_model` accepts and that match a shell wildcard."""
    return [name for name in _names() if fnmatch(name, pattern)]


def create_model(
    name: str,
    *,
    version: int | None = None,
    token_mixer: str | None = None,
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
    drop_path_mode: DropPathMode | None = None,
    activation_checkpointing: bool | None = None,
    attention_backend: str | None = None,
) -> SwinTransformer:
    """Creates a randomly initialised model of a variant.

    Args:
        name: one of `list_models()`, such as "swin_tiny_patch4_window7_224".
        version: like all that follow, a field of `SwinConfig`. If None, the variant's own value (1000 classes).

    Raises:
        UserError: no variant has that name, or the values do not fit each other.
    """
    given: dict[str, Any] = {
        "version": version,
        "token_mixer": token_mixer,
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
        "drop_path_mode": drop_path_mode,
        "activation_checkpointing": activation_checkpointing,
        "attention_backend": attention_backend,
    }
    config = model_config(name)
    return SwinTransformer(replace(config, **{key: value for key, value in given.items() if value is not None}))


def model_config(name: str) -> SwinConfig:
    """Returns the hyper-parameters of a variant, with the 1,000 classes of ImageNet-1k.

    Raises:
        UserError: no variant has that name.
    """
    if name not in _names():
        raise UserError(f"model {name!r} is unknown{did_you_mean(name, _names())}")
    return _config(name)


@cache
def _config(name: str) -> SwinConfig:
    values = {key: value for key, value in _read(name).items() if value is not None and key != "_target_"}
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        raise UserError(f"conf/model/{name}.yaml: unknown key {unknown[0]}{did_you_mean(unknown[0], FIELDS)}")
    return SwinConfig(**values)


@cache
def _names() -> tuple[str, ...]:
    """Returns the names of the Swin Transformers among the choices of `model`."""
    return tuple(
        sorted(
            file.stem
            for file in (CONF / "model").glob("*.yaml")
            if not file.stem.startswith("_") and _read(file.stem).get("_target_") == SWIN
        )
    )


@cache
def _read(name: str) -> dict[str, Any]:
    """Returns a file of conf/model on top of the files of its `defaults` list, as Hydra composes them."""
    own = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"))
    assert isinstance(own, dict)
    config: dict[str, Any] = {}
    for base in own.pop("defaults", []):
        config |= _read(base) if base != "_self_" else {}
    return config | {str(key): value for key, value in own.items()}
