"""Checks of the pickle in a torch file before torch reads it, and plain containers and tensors from what torch has read.

torch's restricted reader calls only functions on its list, but some of these take any amount of time or memory.
"""

import io
import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from swin_lab.errors import UserError

COSTLY = re.compile(r"(__builtin__|builtins) bytearray|torch(\.cuda|\.sparse)? \w+Tensor")
"""Functions on torch's list that no weight file calls: each takes a size and allocates that much."""

SLOW_ENCODINGS = ("punycode", "idna")
"""Encodings whose time grows with the square of a text; numpy's numbers are stored with `_codecs.encode` and latin1."""

MAX_PICKLE_BYTES = 2**26
"""Limit of the pickle of a zip archive, which holds names and shapes: published files have less than 1 MB."""

LEGACY_PICKLES = 4
"""Number of pickles at the beginning of a file of torch before 1.6: magic number, protocol, system, and the contents."""


def check_pickle(file: Path, is_zip: bool) -> None:
    """Refuses a torch file whose pickle calls a function that takes unlimited memory or time.

    What is damaged is left to torch, which says why.

    Raises:
        UserError: the pickle contains such a call, or is far larger than the description of tensors.
    """
    try:
        if is_zip:
            content = torch._C.PyTorchFileReader(str(file)).get_record("data.pkl")  # It finds the record that torch reads.
            if len(content) > MAX_PICKLE_BYTES:
                raise UserError(f"{file} is refused: the list of its tensors has {len(content):,} bytes")
            _check_opcodes(file, io.BytesIO(content), 1)
        else:
            with file.open("rb") as opened:
                _check_opcodes(file, opened, LEGACY_PICKLES)
    except UserError:
        raise
    except (ValueError, RuntimeError, OSError, EOFError, IndexError, OverflowError):
        return


def _check_opcodes(file: Path, opened: BinaryIO, count: int) -> None:
    for _ in range(count):
        for opcode, argument, _position in pickletools.genops(opened):
            if opcode.name in ("GLOBAL", "INST") and COSTLY.fullmatch(str(argument)):
                called = str(argument).replace(" ", ".")
                raise UserError(f"{file} is not loaded: it contains a call of {called}, which no weight file needs")
            if isinstance(argument, str) and len(argument) < 20 and argument.strip().lower() in SLOW_ENCODINGS:
                raise UserError(f"{file} is not loaded: it contains the encoding {argument}, which no weight file needs")


def plain(content: dict[Any, Any]) -> dict[Any, Any]:
    """Returns dicts and tensors without the attributes that a pickle can give them, which may hide their methods.

    Args:
        content: dicts, at any depth; a dict may occur several times, and contain itself.

    Returns:
        Plain dicts with plain tensors; what occurs several times still does.
    """
    rebuilt: dict[int, dict[Any, Any]] = {id(content): {}}
    remaining = [content]
    while remaining:
        source = remaining.pop()
        target = rebuilt[id(source)]
        for key, value in dict.items(source):
            if isinstance(value, dict):
                if id(value) not in rebuilt:
                    rebuilt[id(value)] = {}
                    remaining.append(value)
                target[key] = rebuilt[id(value)]
            else:
                target[key] = Tensor.detach(value) if isinstance(value, Tensor) else value
    return rebuilt[id(content)]


def tensors_of(content: dict[Any, Any]) -> Iterator[Tensor]:
    """Yields the tensors in dicts, at any depth; those of a dict that occurs several times are yielded once."""
    seen = {id(content)}
    remaining = [content]
    while remaining:
        for value in remaining.pop().values():
            if isinstance(value, Tensor):
                yield value
            elif isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                remaining.append(value)
