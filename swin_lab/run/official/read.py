"""Reads YAML files of the official code (github.com/microsoft/Swin-Transformer at f82860b)."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from swin_lab.errors import UserError, did_you_mean
from swin_lab.run.official.defaults import DEFAULTS, IGNORED_KEYS, NETWORK_DEFAULTS
from swin_lab.run.official.overrides import to_overrides
from swin_lab.validation import check_value

NETWORKS = {"swin": ("SWIN", 1), "swinv2": ("SWINV2", 2)}
"""MODEL.TYPE -> section of the network's keys, version of the architecture."""


@dataclass(frozen=True)
class OfficialConfig:
    """Contains the translation of a configuration file of the official code.

    Args:
        name: MODEL.NAME.
        overrides: the same configuration as overrides of train.py.
        unknown: keys of the file that have no counterpart in swin_lab.
    """

    name: str
    overrides: list[str]
    unknown: list[str]


def read_official(file: Path, devices: int = 8) -> OfficialConfig:
    """Reads a YAML file of the official code.

    Args:
        file: for example configs/swin/swin_large_patch4_window7_224_22kto1k_finetune.yaml.
        devices: number of GPUs. The batch size of the file is per GPU.

    Returns:
        The file's configuration as overrides of train.py.

    Raises:
        UserError: the file is not a configuration of the official code, or it needs something that swin_lab does not have
            (MLP and MoE networks, other optimizers).
    """
    given = _flat(_load(file))
    network = str(given.get("MODEL.TYPE", DEFAULTS["MODEL.TYPE"]))
    if network not in NETWORKS:
        raise UserError(f"{file}: MODEL.TYPE={network} is not supported{did_you_mean(network, NETWORKS)}")
    section, version = NETWORKS[network]
    defaults = DEFAULTS | {f"MODEL.{section}.{key}": value for key, value in NETWORK_DEFAULTS.items()}
    unknown = [key for key in given if key not in defaults and key not in IGNORED_KEYS]
    values = defaults | {key: _checked(f"{file}: {key}", value, defaults.get(key)) for key, value in given.items()}
    optimizer = str(values["TRAIN.OPTIMIZER.NAME"])
    if optimizer.lower() != "adamw":
        raise UserError(f"{file}: TRAIN.OPTIMIZER.NAME={optimizer} is not supported; choose adamw")
    network_values = {key: values[f"MODEL.{section}.{key}"] for key in NETWORK_DEFAULTS}
    overrides = to_overrides(str(file), values, network_values, version=version, devices=devices)
    return OfficialConfig(str(values["MODEL.NAME"]), overrides, unknown)


def _load(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict) or not {"MODEL", "DATA", "TRAIN"} & set(tree):
        raise UserError(f"{file} is not a configuration of the official code: it has none of MODEL, DATA and TRAIN")
    return tree


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dictionaries under dotted names."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        values |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values


def _checked(name: str, value: Any, default: Any) -> Any:
    """Returns a value with the type of its default.

    YAML 1.1 reads numbers such as 2e-05 as strings; the official code converts them, and so does this function.
    """
    if type(default) not in (float, int, bool):
        return value
    if isinstance(default, float) and isinstance(value, str):
        with suppress(ValueError):  # The check below reports it.
            value = float(value)
    checked = check_value(name, value, type(default))
    return float(checked) if isinstance(default, float) else checked
