"""Values from YAML and the command line are checked strictly, with a message that says what is expected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from swin_lab.errors import UserError
from swin_lab.validation import (
    Expected,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    check_fields,
    check_value,
)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, int, 1),
        (1, float, 1.0),
        (True, bool, True),
        (None, int | None, None),
        ([1, 2], tuple[int, int], (1, 2)),
        ([1, 2], Sequence[int], [1, 2]),
        ([[1, 2], 3], int | tuple[int | tuple[int, int], ...], ((1, 2), 3)),
        ("epoch", Literal["update", "epoch"], "epoch"),
        (2, Literal[1, 2], 2),
        ([1, 2], Annotated[PositiveInt | tuple[PositiveInt, ...], Expected("one size or several")], (1, 2)),
        ({"a": [1]}, dict[str, Any], {"a": [1]}),
        ("anything", Any, "anything"),
    ],
)
def test_a_value_of_the_right_type_passes(value, annotation, expected):
    checked = check_value("key", value, annotation)
    assert checked == expected
    assert type(checked) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("1", int, "key='1' must be an integer"),
        ("", int, "key='' must be an integer"),
        ("true", bool, "key='true' must be true or false"),
        (True, int, "key=true must be an integer"),
        (1.0, int, "key=1.0 must be an integer"),
        (float("nan"), float, "key=nan must be a finite number"),
        (float("inf"), PositiveFloat, "key=inf must be a positive number up to 1,000,000"),
        ("no", bool, "key=no must be true or false"),
        (0, bool, "key=0 must be true or false"),
        (0, PositiveInt, "key=0 must be a positive integer"),
        (-1, NonNegativeInt, "key=-1 must be a non-negative integer"),
        (-0.5, NonNegativeFloat, "key=-0.5 must be a non-negative number up to 1,000,000"),
        (1.5, Probability, "key=1.5 must be a number of at least 0 and at most 1"),
        (1.0, Fraction, "key=1.0 must be a number of at least 0 and below 1"),
        ("x", int | None, "key=x must be an integer or null"),
        ([1, 2, 3], tuple[int, int], "key=[1, 2, 3] must be a list of 2 values, each an integer"),
        ([1, 0], tuple[PositiveInt, ...], "key=[1, 0] must be a list, each entry a positive integer"),
        ("ab", Sequence[str], "key=ab must be a list, each entry a string"),
        ("epoc", Literal["update", "epoch"], "key=epoc is unknown; did you mean epoch?"),
        (7, Literal["update", "epoch"], "key=7 must be one of update, epoch"),
        (True, Literal[1, 2], "key=true must be one of 1, 2"),
        (1.0, Literal[1, 2], "key=1.0 must be one of 1, 2"),
        (1, Literal[True] | None, "key=1 must be one of true or null"),
        (
            0,
            Annotated[PositiveInt | tuple[PositiveInt, ...], Expected("one size or several")],
            "key=0 must be one size or several",
        ),
    ],
)
def test_any_other_value_is_refused_and_the_message_says_what_is_expected(value, annotation, expected):
    with pytest.raises(UserError) as caught:
        check_value("key", value, annotation)
    assert str(caught.value) == expected


@dataclass(frozen=True)
class Example:
    sizes: tuple[PositiveInt, ...]
    rate: Probability = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "example.")


def test_a_dataclass_that_checks_its_fields_has_tuples_for_lists():
    assert Example([1, 2]).sizes == (1, 2)


def test_a_dataclass_names_the_field_with_its_prefix():
    with pytest.raises(UserError, match=r"example\.rate=2 must be a number of at least 0 and at most 1"):
        Example([1], rate=2)
