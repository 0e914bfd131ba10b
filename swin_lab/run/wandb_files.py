"""Reads W&B's offline files: a log in LevelDB's format, of which a killed process has not written the last records."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAGIC = b":W&B"
HEADER, BLOCK = 7, 32_768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
"""A record lies within a block, or its parts in several."""


def offline_files(run_dir: Path) -> list[Path]:
    """Returns the offline files of a run, that of the first process first."""
    return sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)


def offline_records(file: Path) -> Iterator[Any]:
    """Yields the records of a file, messages of W&B's protocol, up to the first one that is not whole."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    content = file.read_bytes()
    if content[:4] != MAGIC:
        return
    parts, position = b"", HEADER
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # padding
            position += left
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        part = content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind not in (FULL, FIRST, MIDDLE, LAST) or len(part) < length:
            return
        parts += part
        if kind in (FULL, LAST):
            try:
                yield Record.FromString(parts)
            except DecodeError:
                return
            parts = b""


def logged_numbers(run_dir: Path) -> set[int]:
    """Returns the numbers of the records of curves that the offline files of a run contain."""
    records = (record for file in offline_files(run_dir) for record in offline_records(file))
    return {record.history.step.num for record in records if record.WhichOneof("record_type") == "history"}
