"""The exception for mistakes that a user can fix, which every package raises."""

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import takewhile

MAX_CHOICES = 16
"""Number of choices that a message lists at most; of more choices it lists those with the same beginning."""


MAX_LINES, MAX_LINE = 3, 1000
"""Number of lines of a message, and of characters of a line, that a text may have at most."""

_NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
"""Control characters, separators of lines, and bytes that are not UTF-8 (surrogates)."""


class UserError(ValueError):
    """Reports invalid input.

    The message says what is wrong, the value, and what to do. The commands print it and exit with code 2. It may contain names
    and values of files from elsewhere: control characters are escaped, further lines joined, and long lines shortened.
    """

    def __init__(self, message: object = "") -> None:
        *lines, last = str(message).split("\n", MAX_LINES - 1)
        super().__init__("\n".join(printable_line(line) for line in [*lines, last]))


def is_one_line(text: str) -> bool:
    """Returns whether a text is one line of valid Unicode without control characters."""
    return _NOT_IN_A_LINE.search(text) is None


def printable(text: str) -> str:
    """Returns a text with escapes for control characters and for bytes that are not UTF-8, such as those of a file name."""
    return _NOT_IN_A_LINE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_line(text: str) -> str:
    """Returns a printable text that is shortened to the length of one line of a message."""
    text = printable(text[: MAX_LINE + 1])
    return text if len(text) <= MAX_LINE else text[: MAX_LINE - 3] + "..."


PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS)
"""Error numbers of the system for a path that its user must change."""


def explain_path(error: OSError) -> str | None:
    """Returns a message for a path that cannot be used, or None if an error of the system has another cause."""
    if error.errno not in PATH_ERRORS or error.filename is None:
        return None
    name = str(error.filename)
    return f"{name if len(name) < 200 else name[:200] + '...'}: {str(error.strerror).lower()}"


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
