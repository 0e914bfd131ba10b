"""Checkpoints of runs: what they say besides the weights, and what they may build."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from swin_lab.card import NETWORK
from swin_lab.data.sources import __all__ as SOURCES
from swin_lab.errors import UserError
from swin_lab.weights.files import Contents

CARD_KEYS = frozenset(["model", "class_names", "preprocessing", "precision", "device_batch", "config"])
"""What the checkpoint of a run says of itself."""

OUR_CLASSES = frozenset(["swin_lab.models.SwinTransformer"] + [f"swin_lab.data.{name}" for name in SOURCES])
"""What a file may name to be built without being trusted."""


def card_of_run(contents: Contents) -> dict[str, Any] | None:
    """How the checkpoint of a run describes itself; None for weights that come from no run.

    Raises:
        UserError: the description is not whole.
    """
    card = contents.card
    if card is None or "config" not in card:
        return None
    missing = CARD_KEYS - set(card)
    if missing:
        raise UserError(f"{contents.file} is damaged: its description lacks {', '.join(sorted(missing))}")
    return card


def tensors_of_run(contents: Contents) -> dict[str, Tensor]:
    """The network's tensors in the checkpoint of a run, whatever class the network is.

    Raises:
        UserError: there are none.
    """
    weights = contents.tree.get("state_dict")
    if not isinstance(weights, dict):
        raise UserError(f"{contents.file} is damaged: it describes a model and holds no weights (state_dict)")
    return {key.removeprefix(NETWORK): value for key, value in weights.items() if key.startswith(NETWORK)}


def refuse_foreign_classes(file: Path, nodes: dict[str, dict[str, Any]]) -> None:
    """Raises UserError if a file asks to build a class that is not one of this project's own."""
    for where, node in nodes.items():
        foreign = [target for target in _targets(node) if target not in OUR_CLASSES]
        if foreign:
            raise UserError(
                f"{file} wants to build its {where} with {foreign[0]}, which is not part of swin_lab.\n"
                "If you trust the file, add trust=true."
            )


def _targets(value: Any) -> Iterator[object]:
    """Every class that a node names, however deep."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value["_target_"]
        for child in value.values():
            yield from _targets(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _targets(child)
