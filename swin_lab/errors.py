"""The exception for mistakes that a user can fix, which every package raises."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import takewhile

MAX_CHOICES = 16
"""Number of choices that a message lists at most; of more choices it lists those with the same beginning."""


class UserError(ValueError):
    """Reports invalid input.

    The message says what is wrong, the value, and what to do. The commands print it and exit with code 2.
    """


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns the end of an error message: "; did you mean X?" for the nearest choice, or the choices if none is near."""
    choices = sorted(choices)
    near = get_close_matches(word, choices, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    if len(choices) <= MAX_CHOICES:
        return f"; choose one of {', '.join(choices)}"
    similar = sorted(choices, key=lambda choice: -_common_prefix(word, choice))[: MAX_CHOICES // 2]
    return f"; choose one of {', '.join(similar)} or {len(choices) - len(similar)} others"


def _common_prefix(a: str, b: str) -> int:
    """Returns the length of the longest common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
