"""The `model` node and the settings of adapters in it, `model.lora`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from swin_lab.errors import UserError
from swin_lab.models import SwinConfig
from swin_lab.models.lora import LoraConfig, check_installed
from swin_lab.models.zoo import SWIN
from swin_lab.run.instantiate import build_dataclass, check_node
from swin_lab.run.settings import Node
from swin_lab.validation import shown


def split_lora(node: Mapping[str, Any]) -> tuple[Node, LoraConfig | None]:
    """Returns a `model` node without `lora`, and the settings of the adapters; None if it asks for none.

    Raises:
        UserError: a setting is unknown or invalid, or has no effect, or there are no adapters for this model.
    """
    rest = {key: value for key, value in node.items() if key != "lora"}
    given = node.get("lora")
    if given is None:
        return rest, None
    if not isinstance(given, Mapping):
        raise UserError(f"model.lora={shown(given)} must be a mapping of settings, such as model.lora.rank=8, or null")
    lora = build_dataclass("model.lora", LoraConfig, given)
    if lora.rank is None:
        for field in fields(LoraConfig):
            if (value := getattr(lora, field.name)) != field.default:
                raise UserError(f"model.lora.{field.name}={shown(value)} has no effect without adapters; add model.lora.rank=8")
        return rest, None
    if rest.get("_target_") != SWIN:
        raise UserError(f"model.lora.rank={lora.rank} is for {SWIN}; the model is a {rest.get('_target_')}")
    return rest, lora


def check_model(node: Node) -> None:
    """Checks a `model` node without building it.

    Raises:
        UserError: a key is unknown, a value is invalid, or the package of the adapters is not installed.
    """
    rest, lora = split_lora(node)
    # null is the model's own default, or a value that the task or the data gives.
    given = {key: value for key, value in rest.items() if value is not None}
    check_node("model", given)
    if lora is not None:
        lora.check_network(SwinConfig(**{key: value for key, value in given.items() if key != "_target_"}))
        check_installed()
