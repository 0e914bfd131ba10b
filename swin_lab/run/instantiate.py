"""Strict instantiation of `_target_` nodes: unknown keys, missing keys, wrong types and invalid targets are refused.

Hydra's `instantiate` checks none of these before it calls the target. This module knows nothing about images.
"""

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from typing import Any, TypeVar

from hydra.errors import HydraException
from hydra.utils import get_object

from swin_lab.errors import UserError, did_you_mean
from swin_lab.validation import admits, check_value, type_hints

TARGET, PARTIAL = "_target_", "_partial_"
T = TypeVar("T")
HYDRA_KEYS = (TARGET, PARTIAL, "_convert_", "_recursive_")


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
    signature = Parameters.of(target)
    check_keys(where, node)
    given = {key: value for key, value in node.items() if key not in HYDRA_KEYS}
    arguments = {key: _argument(f"{where}.{key}", value, signature.hints.get(key, Any)) for key, value in given.items()}
    arguments |= {key: value for key, value in (extra or {}).items() if key in signature.names and key not in arguments}
    if node.get(PARTIAL):
        if kind is not object:
            raise UserError(f"{where}.{PARTIAL}=true makes no {kind.__name__}; remove it")
        return partial(target, **arguments)
    missing = [name for name in signature.required if name not in arguments]
    if missing:
        raise UserError(f"{where}.{missing[0]} is missing; {node[TARGET]} needs it")
    built = _call(where, node[TARGET], target, signature, arguments)
    if not isinstance(built, kind):
        raise UserError(f"{where}.{TARGET}={node[TARGET]} makes a {type(built).__name__}; it must make a {kind.__name__}")
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


def check_config(where: str, node: Mapping[str, Any]) -> None:
    """Checks the keys of a node and, for a target with a config dataclass, the values, without building the target.

    Raises:
        UserError: a key is unknown, or a value is invalid.
    """
    check_keys(where, node)
    signature = Parameters.of(resolve(where, node))
    if signature.config_class is not None:
        given = {key: value for key, value in node.items() if key not in HYDRA_KEYS and value is not None}
        for key, value in given.items():
            check_value(f"{where}.{key}", value, signature.hints[key])
        signature.config_class(**given)


def is_chosen(node: Mapping[str, Any] | None) -> bool:
    """Returns whether a group chooses a class; the choice `none` is an empty node, to which an experiment may add keys."""
    return bool(node) and TARGET in (node or {})


def resolve(where: str, node: Mapping[str, Any]) -> Any:
    """Returns the class or function that a node names; raises UserError if it does not exist."""
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node} must name a class: {{_target_: package.module.Class, argument: value}}")
    if TARGET not in node:
        raise UserError(f"{where} does not name a class (_target_); choose one of the choices that --help lists")
    name = node[TARGET]
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}.{TARGET}={name} cannot be imported; give the full name of a class: package.module.Class")
    hydra_log = logging.getLogger("hydra.utils")  # Hydra also logs the error that is raised below.
    try:
        hydra_log.disabled = True
        target = get_object(name)
    except (ImportError, AttributeError, HydraException, ValueError, TypeError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()
        raise UserError(f"{where}.{TARGET}={name} cannot be imported: {' '.join(reason[:2])}") from error
    finally:
        hydra_log.disabled = False
    if not callable(target):
        raise UserError(f"{where}.{TARGET}={name} is not a class or function")
    try:
        inspect.signature(target)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}.{TARGET}={name} has no signature, so its arguments cannot be checked") from error
    return target


@dataclass(frozen=True)
class Parameters:
    """Describes the parameters of a target."""

    names: frozenset[str]
    required: tuple[str, ...]
    hints: Mapping[str, Any]
    takes_any: bool
    config_class: type | None
    """The dataclass whose fields the target takes as its keys. If None, the keys are the parameters themselves."""

    @classmethod
    def of(cls, target: Any) -> "Parameters":
        """Reads the signature of a class or function."""
        parameters = inspect.signature(target).parameters
        hints = type_hints(getattr(target, "__init__") if isinstance(target, type) else target)  # noqa: B009 - mypy
        config_class = hints.get("config") if list(parameters) == ["config"] else None
        if isinstance(config_class, type) and is_dataclass(config_class):
            return cls(
                frozenset(field.name for field in fields(config_class)), (), type_hints(config_class), False, config_class
            )
        named = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        required = tuple(p.name for p in named if p.default is p.empty)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        return cls(frozenset(p.name for p in named), required, hints, takes_any, None)


def _argument(where: str, value: Any, annotation: Any) -> Any:
    """Builds the objects inside a value, then checks its type."""
    if isinstance(value, Mapping) and TARGET in value:
        return check_value(where, instantiate(where, value), annotation)
    if isinstance(value, Mapping) and not admits(annotation, dict) and admits(annotation, type(None)):
        return None  # The choice `none` of a group is an empty node.
    if isinstance(value, Mapping):
        return {key: _argument(f"{where}.{key}", entry, Any) for key, entry in value.items()}
    if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        return check_value(where, [_argument(f"{where}.{i}", entry, Any) for i, entry in enumerate(value)], annotation)
    return check_value(where, value, annotation)


def _call(where: str, name: str, target: Any, signature: Parameters, arguments: dict[str, Any]) -> Any:
    try:
        if signature.config_class is not None:
            return target(signature.config_class(**arguments))
        return target(**arguments)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        if str(name).startswith("swin_lab."):  # swin_lab raises UserError for wrong input; any other error is a bug.
            raise
        raise UserError(f"{where}: {error}") from error
