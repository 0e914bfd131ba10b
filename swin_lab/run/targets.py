"""Targets: the classes and functions that `_target_` names, and their parameters."""

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object

from swin_lab.errors import UserError
from swin_lab.run.limits import keywords_of, limits_of
from swin_lab.run.own_modules import search_own_folders
from swin_lab.validation import check_value, type_hints

TARGET, PARTIAL = "_target_", "_partial_"
HYDRA_KEYS = (TARGET, PARTIAL, "_convert_", "_recursive_")


def resolve(where: str, node: Mapping[str, Any]) -> Any:
    """Returns the class or function that a node names; raises UserError if it does not exist."""
    if not isinstance(node, Mapping):
        raise UserError(f"{where}={node} must name a class: {{_target_: package.module.Class, argument: value}}")
    if TARGET not in node:
        keys = f", only {', '.join(map(str, node))}" if node else ""
        raise UserError(f"{where} does not name a class (_target_){keys}; choose one of the choices that --help lists")
    name = node[TARGET]
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}.{TARGET}={name} cannot be imported; give the full name of a class: package.module.Class")
    search_own_folders(name)
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


def result_type(target: Any) -> type | None:
    """Returns the class of what a target makes, which may be a base class for a function; None if it does not tell."""
    made = target if isinstance(target, type) else type_hints(target).get("return")
    return made if isinstance(made, type) else None


@dataclass(frozen=True)
class Parameters:
    """Describes the parameters of a target."""

    names: frozenset[str]
    required: tuple[str, ...]
    hints: Mapping[str, Any]
    limits: Mapping[str, Any]
    """Further annotations of arguments, which exclude values that make no sense."""
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
                frozenset(field.name for field in fields(config_class)), (), type_hints(config_class), {}, False, config_class
            )
        named = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        required = tuple(p.name for p in named if p.default is p.empty)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        keywords = keywords_of(target) if takes_any else {}
        names = frozenset([*(p.name for p in named), *keywords])
        return cls(names, required, hints, {**limits_of(target), **keywords}, takes_any and not keywords, None)

    def check_limits(self, where: str, given: Mapping[str, Any]) -> None:
        """Raises UserError for a plain value that makes no sense, although the annotation of its argument admits it."""
        for key in self.limits.keys() & given.keys():
            if not has_target(given[key]):
                check_value(f"{where}.{key}", given[key], self.limits[key])


def has_target(value: Any) -> bool:
    """Returns whether a value is a node, or a list that contains one."""
    if isinstance(value, list):
        return any(map(has_target, value))
    return isinstance(value, Mapping) and TARGET in value
