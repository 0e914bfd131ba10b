"""Reads YAML files of the official code (github.com/microsoft/Swin-Transformer at f82860b)."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from swin_lab.errors import UserError, did_you_mean
from swin_lab.run.official.defaults import DEFAULTS, IGNORED_KEYS, NETWORK_DEFAULTS, OF_ATTENTION, PUBLISHED_BATCH, TYPES
from swin_lab.run.official.overrides import to_overrides
from swin_lab.validation import check_value

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "swin": ("SWIN", {"version": 1, "token_mixer": "attention"}),
    "swinv2": ("SWINV2", {"version": 2, "token_mixer": "attention"}),
    "swin_mlp": ("SWIN_MLP", {"version": 1, "token_mixer": "mlp"}),
}
"""MODEL.TYPE -> section of the network's keys, and the kind of network as hyper-parameters."""
ASSUMED_GPUS = 8
"""Number of GPUs of a file that is none of the published ones, as in the commands of get_started.md."""


@dataclass(frozen=True)
class OfficialConfig:
    """Contains the translation of a configuration file of the official code.

    Args:
        name: MODEL.NAME.
        overrides: the same configuration as overrides of train.py.
        notes: what the file does not tell, and its keys that have no counterpart in swin_lab.
    """

    name: str
    overrides: list[str]
    notes: list[str]


def read_official(file: Path, gpus: int | None = None) -> OfficialConfig:
    """Reads a YAML file of the official code.

    Args:
        file: for example configs/swin/swin_large_patch4_window7_224_22kto1k_finetune.yaml.
        gpus: number of GPUs; the batch size of the file is per GPU. If None, that of the published training of this name, or 8.

    Returns:
        The file's configuration as overrides of train.py.

    Raises:
        UserError: the file is not a configuration of the official code, or it needs something that swin_lab does not have
            (MoE networks, other optimizers).
    """
    tree = _load(file)
    section, kind = _network(file, tree)
    absent = OF_ATTENTION if section == "SWIN_MLP" else ()
    network_defaults = {key: value for key, value in NETWORK_DEFAULTS.items() if key not in absent}
    defaults = DEFAULTS | {f"MODEL.{section}.{key}": value for key, value in network_defaults.items()}
    types = TYPES | {f"MODEL.{section}.{key}": TYPES[key] for key in network_defaults if key in TYPES}
    given = _flat(file, tree, {*defaults, *IGNORED_KEYS})
    if not given.keys() & defaults.keys():
        raise UserError(f"{file} is not a configuration of the official code: none of its keys is known")
    values = defaults | {
        key: _checked(f"{file}: {key}", value, types.get(key, type(defaults[key])))
        for key, value in given.items()
        if key in defaults
    }
    optimizer = values["TRAIN.OPTIMIZER.NAME"]
    if optimizer.lower() != "adamw":
        raise UserError(f"{file}: TRAIN.OPTIMIZER.NAME={optimizer} is not supported; choose adamw")
    batch, note = _global_batch(given, values, gpus)
    network_values = NETWORK_DEFAULTS | {key: values[f"MODEL.{section}.{key}"] for key in network_defaults}
    overrides = to_overrides(str(file), values, network_values, kind=kind, global_batch=batch)
    unknown = [f"{key} has no counterpart and is left out" for key in given if key not in defaults and key not in IGNORED_KEYS]
    return OfficialConfig(values["MODEL.NAME"], overrides, [*note, *unknown])


def _load(file: Path) -> dict[Any, Any]:
    try:
        tree = yaml.safe_load(file.read_text())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not a YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict) or not {"MODEL", "DATA", "TRAIN"} & set(tree):
        raise UserError(f"{file} is not a configuration of the official code: it has none of MODEL, DATA and TRAIN")
    if tree.get("BASE") not in (None, [], [""]):
        raise UserError(f"{file}: BASE={tree['BASE']} is not supported; write all keys into one file")
    return tree


def _network(file: Path, tree: Mapping[Any, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the section of the network's keys, and its kind as hyper-parameters."""
    model = tree.get("MODEL")
    kind = str(model.get("TYPE", DEFAULTS["MODEL.TYPE"])) if isinstance(model, dict) else DEFAULTS["MODEL.TYPE"]
    if kind not in NETWORKS:
        raise UserError(f"{file}: MODEL.TYPE={kind} is not supported{did_you_mean(kind, NETWORKS)}")
    return NETWORKS[kind]


def _flat(file: Path, tree: Mapping[Any, Any], known: set[str], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dictionaries under dotted names.

    Raises:
        UserError: a value stands where a section of known keys belongs, or a section where a value belongs.
    """
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        is_section = any(other.startswith(f"{name}.") for other in known)
        if isinstance(value, dict) and name not in known:
            values |= _flat(file, value, known, f"{name}.")
        elif is_section or isinstance(value, dict):
            raise UserError(f"{file}: {name}={value} must be {'a section of keys' if is_section else 'a value, not a section'}")
        else:
            values[name] = value
    return values


def _checked(name: str, value: Any, kind: Any) -> Any:
    """Returns a value of the given type.

    YAML 1.1 reads numbers such as 2e-05 as strings; the official code converts them, and so does this function.
    """
    if kind is float and isinstance(value, str):
        with suppress(ValueError):  # The check below reports it.
            value = float(value)
    checked = check_value(name, value, kind)
    return float(checked) if kind is float else checked


def _global_batch(given: Mapping[str, Any], values: Mapping[str, Any], gpus: int | None) -> tuple[int, list[str]]:
    """Returns the images per update over all GPUs, and a note about where the number of GPUs is from if it is not given."""
    per_gpu, published = values["DATA.BATCH_SIZE"] * values["TRAIN.ACCUMULATION_STEPS"], given.get("MODEL.NAME")
    if gpus is not None:
        return per_gpu * gpus, []
    if published in PUBLISHED_BATCH and PUBLISHED_BATCH[published] % per_gpu == 0:
        batch = PUBLISHED_BATCH[published]
        return batch, [f"the file does not tell the number of GPUs; {published} was trained with {batch} images per update"]
    batch = per_gpu * ASSUMED_GPUS
    note = f"the file does not tell the number of GPUs; with {ASSUMED_GPUS}, an update has {batch} images; set it with --gpus"
    return batch, [note]
