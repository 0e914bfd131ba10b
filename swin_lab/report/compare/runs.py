"""Finds runs and reads their records, of those as well that are going or have crashed."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_lab.errors import UserError
from swin_lab.record import RESULTS, find_records, read_record

CONFIG, OVERRIDES = "config.yaml", "overrides.txt"
"""Files that every run directory has from its start on."""
NEEDED = ("run.name", "run.state", "run.epochs", "derived.monitor", "derived.monitor_mode")
"""Keys without which a record is damaged."""


@dataclass(frozen=True)
class Run:
    """Contains the record of a run, and how the run is called among those that it is compared with."""

    folder: Path
    record: dict[str, Any]
    label: str
    """Name of the run; runs of a sweep are named after the overrides in which they differ."""
    place: str
    """Its directory, as short as possible."""

    def metric(self, name: str, weights: str = "best") -> float | None:
        """Returns a metric of the weights that the run monitors, raw or EMA, as a fraction; None if there is none yet."""
        suffix = "_ema" if self.record.get("derived.monitor_weights") == "ema" else ""
        value = self.record.get(f"metrics.{weights}{suffix}.{name}")
        return float(value) if isinstance(value, int | float) else None

    @property
    def monitor(self) -> str:
        """Returns the name of the metric that decides which epoch is the best one."""
        return str(self.record["derived.monitor"])


def read_runs(arguments: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Reads the records of runs.

    Args:
        arguments: run directories, folders that contain some at any depth, and patterns such as `runs/*/2026-01-*`.

    Returns:
        The runs, best first, those without a result last; and a line for every run that cannot be read.

    Raises:
        UserError: an argument names nothing, or no run can be read.
    """
    folders = list(dict.fromkeys(folder for argument in arguments for folder in _run_directories(argument)))
    records, unreadable = dict[Path, dict[str, Any]](), []
    for folder in folders:
        try:
            record = read_record(folder)
        except UserError as error:
            unreadable.append(str(error))
            continue
        missing = [key for key in NEEDED if key not in record]
        if record.get("kind", "training") != "training":
            continue
        if missing:
            unreadable.append(f"{folder / RESULTS} is damaged: {missing[0]} is missing")
        else:
            records[folder] = record
    if not records:
        raise UserError("\n".join([f"no run can be read in {' '.join(arguments)}", *unreadable[:1]]))
    places = _places(list(records))
    runs = [Run(*item, label, place) for item, label, place in zip(records.items(), _labels(records), places, strict=True)]
    return sorted(runs, key=_rank(runs)), unreadable


def _run_directories(argument: str) -> list[Path]:
    """Returns the run directories that an argument names, also those of which the record is missing."""
    given = Path(argument).expanduser()
    paths = [given] if os.path.lexists(given) else [Path(name) for name in sorted(glob.glob(str(given), recursive=True))]
    if not paths:
        raise UserError(f"{argument} does not exist; give the directory of a run, a folder that contains runs, or a pattern")
    found = []
    for path in (path.absolute() for path in paths):
        if path.name == RESULTS or (path / RESULTS).is_file():
            found.append(path.parent if path.name == RESULTS else path)
        elif path.is_dir():
            found += find_records(path)
            found += [file.parent for file in sorted(path.rglob(OVERRIDES)) if _has_no_record(file.parent)]
    if not found:
        raise UserError(f"{argument} contains no run, which is a directory with {RESULTS}")
    return found


def _has_no_record(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and not (folder / RESULTS).is_file() and not folder.name.startswith("eval_")


def _rank(runs: Sequence[Run]) -> Any:
    """Returns the sort key that puts the best run first, by the metric that most of them monitor."""
    monitor = main_monitor(runs)
    sign = -1 if greater_is_better(runs) else 1

    def rank(run: Run) -> tuple[bool, float, str]:
        value = run.metric(monitor)
        return value is None, 0.0 if value is None else sign * value, run.place

    return rank


def main_monitor(runs: Iterable[Run]) -> str:
    """Returns the metric that most runs monitor."""
    return Counter(run.monitor for run in runs).most_common(1)[0][0]


def greater_is_better(runs: Sequence[Run]) -> bool:
    """Returns whether a greater value of that metric is a better one."""
    monitor = main_monitor(runs)
    return any(run.record["derived.monitor_mode"] == "max" for run in runs if run.monitor == monitor)


def _labels(records: dict[Path, dict[str, Any]]) -> list[str]:
    """Returns names of runs that are all different: the sweep is added, or else the directory."""
    names = _names(list(records.values()))
    within = [f"{record.get('run.group') or ''} {name}".strip() for name, record in zip(names, records.values(), strict=True)]
    count, count_within, places = Counter(names), Counter(within), _places(list(records))
    labels = []
    for name, longer, place in zip(names, within, places, strict=True):
        labels.append(name if count[name] == 1 else longer if count_within[longer] == 1 else f"{name} ({place})")
    return labels


def _names(records: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the names of runs; those of a sweep have the last parts of keys only, such as `lr=0.001`, if these are unique."""
    overrides = [[override.partition("=") for override in record.get("run.differs") or ()] for record in records]
    keys = {key for parts in overrides for key, _, _ in parts}
    count = Counter(key.rpartition(".")[2] for key in keys)
    short = {key: key.rpartition(".")[2] if count[key.rpartition(".")[2]] == 1 else key for key in keys}
    joined = [" ".join(f"{short[key]}{sign}{value}" for key, sign, value in parts) for parts in overrides]
    return [text or str(record["run.name"]) for text, record in zip(joined, records, strict=True)]


def _places(folders: Sequence[Path]) -> list[str]:
    """Returns paths below the folder that all have in common; the last part is left out where the path is unique without it."""
    if len(folders) == 1:
        return [os.path.relpath(folders[0])]
    common = os.path.commonpath(folders)
    relative = [Path(os.path.relpath(folder, common)) for folder in folders]
    count = Counter(path.parent for path in relative)
    if all(count[path.parent] == 1 and path.parent.name for path in relative):
        relative = [path.parent for path in relative]
    return [path.as_posix() for path in relative]
