"""The one exception that every room may raise for a mistake its user can mend."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A wrong input. The message says what is wrong, the value, and what to do; the commands print it and exit with code 2."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """ "; did you mean X?" for the nearest choice, or all choices if none is near: the end of an error message."""
    choices = sorted(choices)
    near = get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; choose one of {', '.join(choices)}"


def is_number(value: object) -> bool:
    """An int or float, as YAML and the command line give them; not True or False, not text."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """An int, not True or False."""
    return isinstance(value, int) and not isinstance(value, bool)
