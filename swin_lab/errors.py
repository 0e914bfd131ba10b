"""The one exception that every room may raise for a mistake its user can mend."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import takewhile

MAX_CHOICES = 16
"""That a message lists; of more it names those that begin alike."""


class UserError(ValueError):
    """A wrong input. The message says what is wrong, the value, and what to do; the commands print it and exit with code 2."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """ "; did you mean X?" for the nearest choice, or the choices if none is near: the end of an error message."""
    choices = sorted(choices)
    near = get_close_matches(word, choices, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    if len(choices) <= MAX_CHOICES:
        return f"; choose one of {', '.join(choices)}"
    alike = sorted(choices, key=lambda choice: -_common_start(word, choice))[: MAX_CHOICES // 2]
    return f"; choose one of {', '.join(alike)} or {len(choices) - len(alike)} others"


def _common_start(a: str, b: str) -> int:
    """How many characters are the same from the start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def is_number(value: object) -> bool:
    """An int or float, as YAML and the command line give them; not True or False, not text."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """An int, not True or False."""
    return isinstance(value, int) and not isinstance(value, bool)
