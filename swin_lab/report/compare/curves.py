"""The learning curves of a run, from its metrics.csv, with times from its TensorBoard files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from mmap import ACCESS_READ, mmap
from pathlib import Path
from struct import Struct

import numpy as np

METRICS = "metrics.csv"
NOT_CURVES = ("epoch", "step")
FINAL = "final"
"""Beginning of the columns of the evaluation at the end of a run: a value, not a curve."""
OF_CURVES = ("train/", "val/", "val_ema/")
"""Beginnings of the tags whose records tell when a step was: those of hyper-parameters and of figures are written later."""
MAX_EVENT = 1024
"""Bytes of a record of a TensorBoard file above which it is not read: an image, not a number."""

BYTES_PER_TIME = 50_000
"""Of a TensorBoard file of n times as many bytes, each n-th record is read, which are several hundred."""
_LENGTH = Struct("<Q")


@dataclass(frozen=True)
class Curve:
    """Contains the values of a metric."""

    updates: np.ndarray
    """(N,), int: finished updates."""
    seconds: np.ndarray | None
    """(N,): time since the start of the run, without pauses between attempts; None if it is not known."""
    values: np.ndarray
    """(N,), finite."""


@dataclass(frozen=True)
class Curves:
    """Contains the learning curves of a run."""

    by_metric: Mapping[str, Curve]
    updates_per_epoch: float | None


def read_curves(run_dir: Path, max_points: int) -> Curves:
    """Reads the curves of a run, which may be going.

    Args:
        run_dir: the run directory.
        max_points: a longer curve is thinned out evenly; its first and its last value are kept.

    Returns:
        The curves; none if the file is missing or damaged.
    """
    columns = _read_csv(run_dir / METRICS)
    step = columns.get("step")
    if step is None:
        return Curves({}, None)
    steps, seconds = _read_times(run_dir)
    found = {}
    for name, values in columns.items():
        if name in NOT_CURVES or name.startswith((f"{FINAL}/", f"{FINAL}_")):
            continue
        rows = np.flatnonzero(np.isfinite(values) & np.isfinite(step))
        if len(rows) > max_points:
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, max_points).round().astype(int))]
        if len(rows):
            times = np.interp(step[rows], steps, seconds) if len(steps) else None
            found[name] = Curve(step[rows].astype(int) + 1, times, values[rows])
    return Curves(found, _updates_per_epoch(columns))


def _updates_per_epoch(columns: Mapping[str, np.ndarray]) -> float | None:
    """Returns the number of updates in an epoch, from the record of the last finished one."""
    ended = [values for name, values in columns.items() if name == "train/loss_epoch" or name.startswith("val/")]
    for values in ended if "epoch" in columns else []:
        rows = np.flatnonzero(np.isfinite(values))
        if len(rows) and columns["step"][rows[-1]] > 0:
            return float((columns["step"][rows[-1]] + 1) / (columns["epoch"][rows[-1]] + 1))
    return None


def _read_csv(file: Path) -> dict[str, np.ndarray]:
    """Returns the columns of a CSV file of numbers; the last line is left out if it is not written to its end."""
    import pyarrow as pa
    from pyarrow import csv

    try:
        text = file.read_bytes()
    except OSError:
        return {}
    text = text[: text.rfind(b"\n") + 1]
    header = text.partition(b"\n")[0].decode(errors="replace").strip()
    types = dict.fromkeys(header.split(","), pa.float64())
    try:
        table = csv.read_csv(
            pa.BufferReader(text),
            parse_options=csv.ParseOptions(invalid_row_handler=lambda _: "skip"),
            convert_options=csv.ConvertOptions(column_types=types),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return {}
    return {name: table[name].to_numpy().astype(float) for name in dict.fromkeys(table.column_names)}


def _read_times(run_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps, ascending, and the seconds that the run had taken until then; every attempt has a file of its own."""
    at: dict[int, float] = {}
    before = 0.0
    for file in sorted(run_dir.glob("events.out.tfevents.*")):
        first = last = None
        for time, step, tag in _events(file):
            first = time if first is None else first
            last = time
            if tag.startswith(OF_CURVES):
                at[step] = before + time - first
        if first is not None and last is not None:
            before += last - first
    steps = sorted(at)
    seconds = np.array([at[step] for step in steps], dtype=float)
    return np.array(steps, dtype=float), np.minimum.accumulate(seconds[::-1])[::-1]


def _events(file: Path) -> Iterator[tuple[float, int, str]]:
    """Yields time, step and tag of records of a TensorBoard file: length (8 bytes), checksum (4), contents, checksum (4).

    Of a large file, some are enough. TensorBoard's own reader computes all checksums in Python, which takes seconds.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        with file.open("rb") as opened:
            data = mmap(opened.fileno(), 0, access=ACCESS_READ)  # Large images in between are not read.
    except (OSError, ValueError):  # Of an empty file, there is no map.
        return
    with data:
        every, position, size = max(len(data) // BYTES_PER_TIME, 1), 0, len(data)
        for i in count():
            if position + 12 > size:
                return
            start, length = position + 12, _LENGTH.unpack_from(data, position)[0]
            position = start + length + 4
            if i % every == 0 and length <= MAX_EVENT and position <= size:
                try:
                    event = Event.FromString(data[start : start + length])
                except DecodeError:
                    return
                values = event.summary.value
                yield event.wall_time, event.step, values[0].tag if len(values) else ""
