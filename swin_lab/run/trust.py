"""Classes that a checkpoint may name without trust=true."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swin_lab.data.sources import __all__ as SOURCES
from swin_lab.errors import UserError
from swin_lab.models.external import __all__ as EXTERNAL_MODELS
from swin_lab.tasks import __all__ as TASKS

NATIVE_CLASSES = frozenset(
    [
        "swin_lab.models.SwinTransformer",
        *(f"swin_lab.tasks.{name}" for name in TASKS),
        *(f"swin_lab.data.{name}" for name in SOURCES),
        *(f"swin_lab.models.external.{name}" for name in EXTERNAL_MODELS),
    ]
)
"""Classes of this project that a file may name."""


def refuse_foreign_classes(file: Path, nodes: Mapping[str, Any]) -> None:
    """Raises UserError if a file names a class that is not one of this project's own.

    Args:
        file: the checkpoint, for the message.
        nodes: parts of its metadata, by name.
    """
    for where, node in nodes.items():
        if foreign := foreign_classes(node):
            raise UserError(
                f"{file} names the class {foreign[0]} for its {where}, which is not part of swin_lab.\n"
                "If you trust the file, add trust=true."
            )


def foreign_classes(node: Any) -> list[object]:
    """Returns the classes that a node names, at any depth, and that are not part of this project."""
    return [target for target in _targets(node) if target not in NATIVE_CLASSES]


def _targets(value: Any) -> Iterator[object]:
    """Yields every class that a node names, at any depth."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value["_target_"]
        for child in value.values():
            yield from _targets(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _targets(child)
