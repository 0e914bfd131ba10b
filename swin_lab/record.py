"""The record of a run, `results.json`: one flat JSON object with dotted keys and native types, which docs/record.md describes.

It imports neither torch nor the configuration, so that hundreds of runs can be read quickly.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias

from filelock import FileLock, Timeout

from swin_lab.errors import UserError

RESULTS = "results.json"
"""File of the record in a run directory."""
PREDICTIONS = "predictions.parquet"
"""File of the predictions for every validation image, in a run directory."""
LOCK = ".lock"
"""File of a run directory that is locked while a process runs in it."""
VERSION = 1

State = Literal["running", "finished", "interrupted", "failed"]
FINISHED, CRASHED = "finished", "crashed"
"""CRASHED is a state that only a reader finds: the file says running, and no process holds the lock of the directory."""

Scalar: TypeAlias = bool | int | float | str | None
Value: TypeAlias = "Scalar | list[Scalar]"
Flat: TypeAlias = dict[str, Any]
"""Dotted key -> a `Value`."""

OF_A_RUN = ("run.name", "run.id", "run.directory", "run.group", "run.job", "run.differs")
"""Keys of a run that are known at its start and do not change."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Contains what a run is and how far it has come; docs/record.md explains each field."""

    name: str
    id: str
    directory: str
    group: str | None
    group_directory: str | None
    job: int | None
    differs: Sequence[str]
    state: State
    reason: str | None
    started: str
    updated: str
    ended: str | None
    attempts: int
    wall_seconds: float
    epochs: int
    updates: int
    images_per_second: float | None
    data_wait_share: float | None
    peak_host_bytes: int | None
    peak_device_bytes: int | None
    images: int
    skipped_images: int
    skipped_updates: int
    eval_command: str


@dataclass(frozen=True, kw_only=True)
class Derived:
    """Contains what follows from the configuration, the data and the machine."""

    task: str
    model: str
    lr: float
    global_batch: int
    device_batch: int
    accumulate: int
    updates: int | None
    updates_per_epoch: int | None
    epochs: int | None
    parameters: int
    parameter_groups: int
    gmacs: float | None
    img_size: Sequence[int]
    precision: str
    attention: str | None
    monitor: str
    monitor_mode: str
    monitor_weights: Literal["raw", "ema"]


@dataclass(frozen=True, kw_only=True)
class Git:
    """Contains the state of swin_lab's checkout; nothing outside one."""

    commit: str | None = None
    dirty: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Describes the first machine of a run, and its processes."""

    cpu: str
    cores: int
    memory_bytes: int | None
    gpus: Sequence[str]
    processes: int
    nodes: int
    system: str


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Identifies the data."""

    source: str
    classes: int
    train_images: int
    val_images: int
    train_fingerprint: str
    val_fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Names the file with the predictions for every validation image."""

    file: str | None = None
    weights: Literal["raw", "ema"] | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """Contains everything that a run records about itself."""

    run: RunState
    overrides: Sequence[str]
    config: Mapping[str, Any]
    """The resolved configuration, nested or flat."""
    derived: Derived
    preprocessing: Mapping[str, Any]
    formats: Mapping[str, Any]
    """Metric -> label and percent."""
    git: Git
    versions: Mapping[str, str]
    hardware: Hardware
    data: DataSet
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """WEIGHTS.METRIC -> value, such as best.acc1."""
    predictions: Predictions = Predictions()

    def flat(self) -> Flat:
        """Returns the contents of results.json."""
        values: Flat = {"version": VERSION, "kind": "training"}
        for name in (entry.name for entry in fields(self)):
            part = getattr(self, name)
            if not isinstance(part, Mapping) and name != "overrides":
                part = {entry.name: getattr(part, entry.name) for entry in fields(part)}
            values |= flat({name: part})
        return values

    def constants(self) -> Flat:
        """Returns what is known at the start and does not change: the hyper-parameters for every logger."""
        moving = ("metrics.", "predictions.", "formats.", "run.")
        values = self.flat().items()
        return {key: value for key, value in values if key in OF_A_RUN or not key.startswith(moving)}


def flat(values: Mapping[str, Any], prefix: str = "") -> Flat:
    """Returns dotted keys with native values, so that run tables can be compared by column.

    Lists of scalars remain; the entries of other lists get keys with their positions. An empty mapping becomes null, and a
    number that is not finite, or a value of another type than those of JSON, becomes its text.
    """
    found: Flat = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{key}.") if value else {key: None}
        elif isinstance(value, list | tuple):
            scalars = not any(isinstance(entry, list | tuple | Mapping) for entry in value)
            found |= {key: list(map(_scalar, value))} if scalars else flat(dict(enumerate(value)), f"{key}.")  # type: ignore[arg-type]
        else:
            found[key] = _scalar(value)
    return found


def _scalar(value: Any) -> Scalar:
    is_plain = value is None or type(value) in (bool, int, str) or (type(value) is float and isfinite(value))
    scalar: Scalar = value if is_plain else str(value)
    return scalar


def read_record(run_dir: Path) -> Flat:
    """Reads the record of a run, of one that is going as well.

    Args:
        run_dir: the run directory, or its results.json.

    Returns:
        Dotted key -> value. `run.state` is crashed if the run says that it is running and no process holds its lock, and
        `run.directory` is where the file was found.

    Raises:
        UserError: there is no record, or another version of swin_lab has written it.
    """
    file = run_dir if run_dir.name == RESULTS else run_dir / RESULTS
    try:
        values = json.loads(file.read_text())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; give the directory of a run") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    version = values.get("version") if isinstance(values, dict) else None
    if version != VERSION:
        what = "is no record of a run" if version is None else f"has the format {version}, and this swin_lab reads {VERSION}"
        raise UserError(f"{file} {what}")
    folder = file.absolute().parent
    if values["run.state"] == "running" and not is_locked(folder):
        values["run.state"] = CRASHED
    return values | {"run.directory": str(folder)}


def find_records(folder: Path) -> Iterator[Path]:
    """Yields the directories under a folder, itself included, that have the record of a run, in the order of their paths."""
    for file in sorted(folder.rglob(RESULTS)):
        if not file.parent.name.startswith("eval_"):
            yield file.parent


def state_of(run_dir: Path) -> str | None:
    """Returns the state of the run in a directory; None if there is no record."""
    return str(read_record(run_dir)["run.state"]) if (run_dir / RESULTS).is_file() else None


def is_finished(run_dir: Path) -> bool:
    """Returns whether the run in a directory has reached its end."""
    return state_of(run_dir) == FINISHED


def is_locked(run_dir: Path) -> bool:
    """Returns whether a process runs in a directory."""
    if not (run_dir / LOCK).is_file():
        return False
    lock = FileLock(run_dir / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def monitored(record: Mapping[str, Any]) -> float:
    """Returns the metric of the final evaluation that decides which epoch is the best one."""
    suffix = "_ema" if record["derived.monitor_weights"] == "ema" else ""
    return float(record[f"metrics.final{suffix}.{record['derived.monitor']}"])
