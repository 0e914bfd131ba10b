"""What a checkpoint may ask for without trust=true: the classes, keys and values of `swin_lab.run.allowed`.

Everything that is not listed there is refused before anything is imported or built, so that a file can import no code, connect
to no host, write nothing, and occupy only as much memory as its own weights or small data need. No string is interpolated.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swin_lab.data.sources import __all__ as SOURCES
from swin_lab.data.sources.synthetic import bytes_in_memory
from swin_lab.errors import UserError
from swin_lab.metadata import Mapped, refuse_unprintable
from swin_lab.models.external import __all__ as EXTERNAL_MODELS
from swin_lab.run.allowed import CIFAR, LISTS, LOADING, MAX_SYNTHETIC_BYTES, SYNTHETIC, SYNTHETIC_SIZES
from swin_lab.run.model import SWIN
from swin_lab.run.settings import Node
from swin_lab.run.targets import TARGET
from swin_lab.tasks import __all__ as TASKS
from swin_lab.validation import check_value
from swin_lab.weights.source_config import config_of_metadata

_PACKAGES = {"tasks": TASKS, "data": SOURCES, "models.external": EXTERNAL_MODELS}
OWN_CLASSES = frozenset([SWIN, *(f"swin_lab.{package}.{name}" for package, names in _PACKAGES.items() for name in names)])
"""Classes of this version that its checkpoints name."""


def needs_trust(nodes: Mapping[str, Node]) -> bool:
    """Returns whether a checkpoint with these nodes can only be evaluated with trust=true."""
    try:
        for where, node in nodes.items():
            allowed_part(Path(), where, node)
    except UserError:
        return True
    return False


def allowed_part(file: Path, where: str, node: Node) -> Node:
    """Returns a node of a file if it asks for nothing that is not on the list; data that would be downloaded is only read.

    Args:
        file: the checkpoint, for messages.
        where: data, model or task.
        node: plain Python, from the checkpoint; keys that the user has given are absent.

    Raises:
        UserError: the node names a class or a key that is not on the list, or a value out of bounds.
    """
    try:
        refuse_unprintable(where, node)
    except UserError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    for target in _targets(node):
        if target not in OWN_CLASSES:
            raise UserError(f"{file} {_foreign(target, where)}")
    if where == "model" and node.get(TARGET) == SWIN:
        try:
            config_of_metadata(node)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        return node
    try:
        _check(where, node, LISTS[where], LOADING if where == "data" else {})
        _check_synthetic(node)
    except UserError as error:
        raise UserError(
            f"{file} asks for more than a checkpoint may: {error}\nIf you trust the file, add trust=true" + _or_give(where)
        ) from error
    return node | {"download": False} if node.get(TARGET) == CIFAR else node


def _check(where: str, node: Node, listed: Mapping[str, Mapping[str, Any]], further: Mapping[str, Any]) -> None:
    """Checks a node against a list of classes and their keys; null is allowed for every key."""
    target = node.get(TARGET)
    if target is not None and target not in listed:
        raise UserError(f"{where}._target_={target} is not a class that it may name there")
    for key, value in node.items():
        annotation = ({TARGET: str} | dict(further) | dict(listed.get(str(target), {}))).get(key)
        if annotation is None:
            raise UserError(f"{where}.{key}={value} is not a key that it may set")
        if isinstance(annotation, Mapping):
            if value:
                _check(f"{where}.{key}", check_value(f"{where}.{key}", value, Mapped), annotation, {})
        elif value is not None:
            check_value(f"{where}.{key}", value, annotation)


def _check_synthetic(node: Node) -> None:
    if node.get(TARGET) == SYNTHETIC:
        size = bytes_in_memory(**{key: value for key, value in node.items() if key in SYNTHETIC_SIZES and value is not None})
        if size > MAX_SYNTHETIC_BYTES:
            raise UserError(f"data would have {size:,} bytes, more than {MAX_SYNTHETIC_BYTES:,}")


def _or_give(where: str) -> str:
    return {"data": ", or give other data with data=...", "task": ", or give +task.KEY=VALUE"}.get(where, "")


def _foreign(target: object, where: str) -> str:
    if isinstance(target, str) and target.startswith("swin_lab."):
        return (
            f"names {target} for its {where}, which is not a class for that in this version of swin_lab.\n"
            "It was written by another version or is damaged; evaluate it with that version"
        )
    return f"names the class {target} for its {where}, which is not part of swin_lab.\nIf you trust the file, add trust=true."


def _targets(value: Any) -> Iterator[object]:
    """Yields every class that a node names, at any depth."""
    if isinstance(value, dict):
        if TARGET in value:
            yield value[TARGET]
        for child in value.values():
            yield from _targets(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _targets(child)
