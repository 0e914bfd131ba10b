"""Adapters in the checkpoint of a run: everything that reads the file gets the sums of weights and adapters, without peft."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.metadata import EMA_KEY, Mapped, Metadata
from swin_lab.models.lora import LoraConfig, merged_tensors
from swin_lab.validation import check_value
from swin_lab.weights.values import why_not_plain, why_unusable

KEY = "lora"
"""Key of the settings in the description of the model."""


def add_adapters(
    label: str, state: dict[Any, Any], metadata: Metadata | None
) -> tuple[dict[Any, Any], Metadata | None, LoraConfig | None]:
    """Adds every adapter in a file to its weight.

    Args:
        label: name of the file, for messages.
        state: the contents of the file.
        metadata: its metadata.

    Returns:
        Contents and metadata of a network that never had adapters, and their settings; None if the file has none.

    Raises:
        UserError: the settings or a tensor of the adapters are damaged.
    """
    if metadata is None or metadata.model.get(KEY) is None:
        return state, metadata, None
    try:
        lora = _settings(metadata.model[KEY])
        parts = {key: state[key] for key in ("state_dict", EMA_KEY) if isinstance(state.get(key), dict)}
        if not parts:
            raise UserError("it has no state_dict, in which the adapters of its model would be")
        plain = state | {key: _merged(part, lora) for key, part in parts.items()}
    except (UserError, TypeError) as error:
        raise UserError(f"{label} is damaged: {error}") from error
    model = {key: value for key, value in metadata.model.items() if key != KEY}
    return plain, replace(metadata, model=model), lora


def _settings(given: object) -> LoraConfig:
    lora = LoraConfig(**check_value("metadata.model.lora", given, Mapped))
    if lora.rank is None:
        raise UserError("metadata.model.lora has no rank")
    return lora


def _merged(tensors: Mapping[Any, Any], lora: LoraConfig) -> dict[str, Any]:
    """Returns the tensors with adapters added; what is no tensor of a weight or adapter is left to later checks."""
    for name, tensor in tensors.items():
        if isinstance(name, str) and (".lora_" in name or ".base_layer." in name):
            why = "is not a tensor" if not isinstance(tensor, Tensor) else why_not_plain(tensor) or why_unusable(tensor)
            if why:
                raise UserError(f"{name} {why}")
    named = {name: tensor for name, tensor in tensors.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
    return merged_tensors(named, lora)
