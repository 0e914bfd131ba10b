"""Types of configuration values, checked once where a value enters: strictly, so that a string is never taken for a number.

pydantic checks the values. YAML has no tuples, so a list is accepted where an annotation asks for a tuple, and becomes one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError

from swin_lab.errors import UserError, did_you_mean

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
LARGEST = 1e6
"""Larger numbers are mistakes: no epoch count, rate, ratio or norm of a configuration comes near."""
PositiveFloat = Annotated[float, Gt(0), Le(LARGEST)]
NonNegativeFloat = Annotated[float, Ge(0), Le(LARGEST)]
Probability = Annotated[float, Ge(0), Le(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]
"""A number from 0 to 1, without 1, such as a drop rate or a decay."""


@dataclass(frozen=True)
class Expected:
    """Describes the values that an annotation admits, for a message that the types alone would make too vague or too long.

    Use it as `Annotated[int, Expected("...")]`.
    """

    text: str
    """It follows "must be"."""


Text = Annotated[str, MinLen(1), Expected("a string that is not empty")]

_NOT_A_YAML_STRING = re.compile(r"[-+]?(\d[\d_]*)?\.?\d*([eE][-+]?\d+)?|true|false|null|~", re.IGNORECASE)
_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def check_value(name: str, value: Any, annotation: Any) -> Any:
    """Checks a value against a type annotation.

    Args:
        name: full name of the value, for the message, such as `optimizer.lr`.
        value: plain Python from YAML or the command line, or any object.
        annotation: a type, optionally with constraints of `annotated_types`. A type that pydantic cannot check is not checked.

    Returns:
        The value, with lists turned into tuples where the annotation asks for tuples.

    Raises:
        UserError: the value does not have that type, or violates a constraint; the message says what is expected.
    """
    adapter = _adapter(annotation)
    if adapter is None:
        return value
    if _equals_a_choice_of_another_type(value, annotation):
        raise UserError(_message(name, value, annotation))
    try:
        return adapter.validate_python(value)
    except ValidationError:
        pass
    if _is_plain(value):
        try:
            return adapter.validate_json(json.dumps(value))  # In JSON, as in YAML, a list is accepted for a tuple.
        except ValidationError:
            pass
    raise UserError(_message(name, value, annotation))


def check_fields(instance: Any, prefix: str = "") -> None:
    """Checks every field of a frozen dataclass against its annotation; to be called by `__post_init__`.

    Args:
        instance: the dataclass; lists become tuples where the annotation asks for tuples.
        prefix: what precedes the field's name in a message, such as `optimizer.`.

    Raises:
        UserError: a field does not have the type of its annotation, or violates a constraint.
    """
    hints = type_hints(type(instance))
    for field in fields(instance):
        value = getattr(instance, field.name)
        checked = check_value(f"{prefix}{field.name}", value, hints[field.name])
        if checked is not value:
            object.__setattr__(instance, field.name, checked)


def type_hints(target: Any) -> Mapping[str, Any]:
    """Returns the annotations of a class's fields or of a function's parameters; empty if they cannot be resolved."""
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError, AttributeError):  # Some names are only imported for type checkers.
        return {}


def admits(annotation: Any, kind: type) -> bool:
    """Returns whether an annotation is, or has in a union, a type of this kind; `Any` admits everything."""
    if annotation is Any:
        return True
    if get_origin(annotation) is Annotated:
        return admits(get_args(annotation)[0], kind)
    if get_origin(annotation) in (Union, UnionType):
        return any(admits(argument, kind) for argument in get_args(annotation))
    found = get_origin(annotation) or annotation
    return isinstance(found, type) and (found is kind or (kind is dict and issubclass(found, Mapping)))


def describe(annotation: Any) -> str:
    """Describes the values that an annotation admits, to follow "must be"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        expected = next((entry.text for entry in arguments[1:] if isinstance(entry, Expected)), None)
        return expected or _describe_number(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        described = dict.fromkeys(describe(argument) for argument in arguments if argument is not NoneType)
        return " or ".join([*described, *(["null"] if NoneType in arguments else [])])
    if origin is Literal:
        return f"one of {', '.join(map(shown, arguments))}"
    if origin is tuple and Ellipsis not in arguments:
        same = len(set(arguments)) == 1
        return f"a list of {len(arguments)} values" + (f", each {describe(arguments[0])}" if same else "")
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each entry {describe(arguments[0])}" if arguments else "a list"
    names = {int: "an integer", float: "a finite number", bool: "true or false", str: "a string", NoneType: "null"}
    return names.get(annotation, f"a {getattr(annotation, '__name__', annotation)}")


def _describe_number(kind: Any, constraints: Sequence[Any]) -> str:
    if kind not in (int, float):
        return describe(kind)
    noun = "integer" if kind is int else "number"
    low = next((constraint for constraint in constraints if isinstance(constraint, Ge | Gt)), None)
    high = next((constraint for constraint in constraints if isinstance(constraint, Le | Lt)), None)
    if high is None or (isinstance(high, Le) and high.le == LARGEST):
        end = "" if high is None else f" up to {LARGEST:,.0f}"
        if isinstance(low, Gt) and low.gt == 0:
            return f"a positive {noun}{end}"
        if isinstance(low, Ge) and low.ge == 0:
            return f"a non-negative {noun}{end}"
    bounds = []
    if low is not None:
        bounds.append(f"of at least {low.ge}" if isinstance(low, Ge) else f"above {low.gt}")
    if high is not None:
        bounds.append(f"at most {high.le}" if isinstance(high, Le) else f"below {high.lt}")
    return f"{'an' if noun == 'integer' else 'a'} {noun} {' and '.join(bounds)}".strip()


def _message(name: str, value: Any, annotation: Any) -> str:
    choices = _choices(annotation)
    if choices and isinstance(value, str):
        return f"{name}={shown(value)} is unknown{did_you_mean(value, choices)}"
    return f"{name}={shown(value)} must be {describe(annotation)}"


def _equals_a_choice_of_another_type(value: Any, annotation: Any) -> bool:
    """Returns whether pydantic would take a value for a choice of a Literal that it only equals, such as True for 1."""
    if not isinstance(value, bool | int | float):
        return False
    choices = [choice for choice in _literals(annotation) if choice == value]
    return bool(choices) and not any(type(choice) is type(value) for choice in choices)


def _choices(annotation: Any) -> list[str]:
    """Returns the choices of a Literal that has strings, with truth values as YAML writes them; [] if it has none."""
    choices = _literals(annotation)
    if not any(isinstance(choice, str) for choice in choices):
        return []
    return [choice if isinstance(choice, str) else shown(choice) for choice in choices if isinstance(choice, str | bool)]


def _literals(annotation: Any) -> list[Any]:
    """Returns the choices of a Literal, also of one that is annotated or in a union with None; [] for any other annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _literals(arguments[0])
    if origin in (Union, UnionType):
        rest = [argument for argument in arguments if argument is not NoneType]
        return _literals(rest[0]) if len(rest) == 1 else []
    return list(arguments) if origin is Literal else []


def shown(value: Any) -> str:
    """Shows a value as YAML writes it; a string that YAML would read as a number or a truth value has quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return f"'{value}'" if isinstance(value, str) and _NOT_A_YAML_STRING.fullmatch(value) else str(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(entry) for key, entry in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # an annotation that cannot be hashed
        return _new_adapter(annotation)


@lru_cache(maxsize=512)
def _cached_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    return _new_adapter(annotation)


def _new_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(annotation, config=_STRICT)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError):
        return None
