"""Strict instantiation of `_target_` nodes: unknown keys, missing keys, wrong types and invalid targets are refused.

Hydra's `instantiate` checks none of these before it calls the target. This module knows nothing about images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from swin_lab.errors import UserError, did_you_mean
from swin_lab.run.limits import WRITTEN_FOLDERS, why_not
from swin_lab.run.targets import HYDRA_KEYS, PARTIAL, TARGET, Parameters, has_target, resolve, result_type
from swin_lab.validation import admits, check_value, shown

T = TypeVar("T")


def instantiate(where: str, node: Mapping[str, Any], extra: Mapping[str, Any] | None = None, kind: type = object) -> Any:
    """Builds the object that a node describes, and first the objects inside it.

    A target whose only parameter is `config`, annotated with a dataclass, takes the fields of that dataclass as its keys.

    Args:
        where: name of the node, for messages, such as `optimizer`.
        node: `_target_` and its arguments, plain Python; with `_partial_: true`, the target with these arguments is returned.
        extra: arguments that the run provides; used are those that the target takes and the node does not set.
        kind: class of which the object must be an instance.

    Raises:
        UserError: the target does not exist, does not take a key, needs another one, refuses a value, or is of another kind.
    """
    target = resolve(where, node)
    _check_kind(where, node, target, kind)
    signature = Parameters.of(target)
    check_keys(where, node)
    given = {key: value for key, value in node.items() if key not in HYDRA_KEYS}
    signature.check_limits(where, given)
    arguments = {key: _argument(f"{where}.{key}", value, signature.hints.get(key, Any)) for key, value in given.items()}
    arguments |= {key: value for key, value in (extra or {}).items() if key in signature.names and key not in arguments}
    if node.get(PARTIAL):
        if kind is not object:
            raise UserError(f"{where}.{PARTIAL}=true makes no {kind.__name__}; remove it")
        return partial(target, **arguments)
    _check_complete(where, node, signature, arguments)
    built = _call(where, node[TARGET], target, signature, arguments)
    _check_class(where, node, type(built), kind)
    return built


def build_dataclass(where: str, kind: type[T], values: Mapping[str, Any]) -> T:
    """Builds a dataclass that checks its own fields from a part of the configuration.

    Args:
        where: name of the part, for messages; "" for the top level.
        kind: the dataclass.
        values: its fields, plain Python.

    Raises:
        UserError: a key is unknown or missing, or a value is invalid.
    """
    prefix = f"{where}." if where else ""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(f"unknown key {prefix}{key}{did_you_mean(str(key), known)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{prefix}{name} is missing")
    return kind(**values)


def check_keys(where: str, node: Mapping[str, Any], also: Sequence[str] = ()) -> None:
    """Raises UserError for a key that the node's target, or a target inside it, does not take.

    Args:
        where: name of the node.
        node: plain Python, with or without `_target_`.
        also: further keys that are allowed.
    """
    if not isinstance(node, Mapping) or TARGET in node:  # resolve() raises an error for what is no node.
        signature = Parameters.of(resolve(where, node))
        known = {*signature.names, *also}
        for key in node if not signature.takes_any else ():
            if key not in known and key not in HYDRA_KEYS:
                raise UserError(f"unknown key {where}.{key}{did_you_mean(str(key), known)}")
    for key, value in node.items():
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, Mapping):
                check_keys(f"{where}.{key}", child)


def check_node(where: str, node: Mapping[str, Any], provided: Sequence[str] | None = None, kind: type = object) -> None:
    """Checks the keys and values of a node without building its target; creates the folder that the target will write.

    Args:
        where: name of the node.
        node: plain Python.
        provided: arguments that the run provides. If None, arguments may be missing.
        kind: class of which the object must be an instance; it is not checked if the target does not tell what it makes.

    Raises:
        UserError: a key is unknown or missing, a value is invalid, or the target is of another kind, needs a package that is
            not installed, or contradicts the run.
    """
    target = resolve(where, node)
    if (reason := why_not(target)) is not None:
        raise UserError(f"{where}.{TARGET}={node[TARGET]} {reason}")
    _check_kind(where, node, target, kind)
    check_keys(where, node)
    signature = Parameters.of(target)
    given = {key: value for key, value in node.items() if key not in HYDRA_KEYS}
    signature.check_limits(where, given)
    for key, value in given.items():
        if not has_target(value):
            check_value(f"{where}.{key}", value, signature.hints.get(key, Any))
    if provided is not None:
        _check_complete(where, node, signature, [*given, *provided])
    for key in given.keys() & WRITTEN_FOLDERS:
        _create_folder(f"{where}.{key}", given[key])
    if signature.config_class is not None:
        _config(where, signature.config_class, given)


def is_chosen(where: str, node: Mapping[str, Any] | None) -> bool:
    """Returns whether a group chooses a class; the choice `none` is an empty node.

    Raises:
        UserError: the node has keys and no class.
    """
    if node and TARGET not in node:
        key = next(iter(node))
        raise UserError(f"{where}.{key}={shown(node[key])}: no {where} is chosen; {where}=... chooses one, see --help")
    return bool(node)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message; a single word, such as a missing key, means nothing without its class."""
    line = next(iter(str(error).strip().splitlines()), "")
    return line if " " in line else f"{type(error).__name__} {line}".strip()


def _create_folder(name: str, folder: str | None) -> None:
    try:
        Path(folder or ".").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{name}={folder} cannot be created: {error.strerror or error}") from error


def _check_kind(where: str, node: Mapping[str, Any], target: Any, kind: type) -> None:
    made = result_type(target)
    if made is not None and not node.get(PARTIAL):
        _check_class(where, node, made, kind)


def _check_class(where: str, node: Mapping[str, Any], made: type, kind: type) -> None:
    if not issubclass(made, kind):
        raise UserError(f"{where}.{TARGET}={node[TARGET]} makes a {made.__name__}; it must make a {kind.__name__}")


def _check_complete(where: str, node: Mapping[str, Any], signature: Parameters, given: Iterable[str]) -> None:
    missing = [name for name in signature.required if name not in set(given)]
    if missing:
        raise UserError(f"{where}.{missing[0]} is missing; {node[TARGET]} needs it")


def _argument(where: str, value: Any, annotation: Any) -> Any:
    """Builds the objects inside a value, then checks its type."""
    if isinstance(value, Mapping) and TARGET in value:
        return check_value(where, instantiate(where, value), annotation)
    if value == {} and not admits(annotation, dict) and admits(annotation, type(None)):
        return None  # The choice `none` of a group is an empty node.
    if isinstance(value, Mapping):
        return check_value(where, {key: _argument(f"{where}.{key}", entry, Any) for key, entry in value.items()}, annotation)
    if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        return check_value(where, [_argument(f"{where}.{i}", entry, Any) for i, entry in enumerate(value)], annotation)
    return check_value(where, value, annotation)


def _config(where: str, config_class: type, arguments: Mapping[str, Any]) -> Any:
    """Builds the configuration of a target, whose messages begin with the name of a field; adds that of the node."""
    try:
        return config_class(**arguments)
    except UserError as error:
        raise UserError(f"{where}.{error}") from error


def _call(where: str, name: str, target: Any, signature: Parameters, arguments: dict[str, Any]) -> Any:
    try:
        if signature.config_class is not None:
            return target(_config(where, signature.config_class, arguments))
        return target(**arguments)
    except UserError:
        raise
    except Exception as error:  # Other libraries raise anything for a wrong value, or for what is not installed.
        if name.startswith("swin_lab."):  # swin_lab raises UserError for wrong input; any other error is a bug.
            raise
        raise UserError(f"{where}: {first_line(error)}") from error
