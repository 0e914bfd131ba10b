"""The columns in which runs are compared: metrics, cost, and the configuration values that differ."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from swin_lab.report.compare.runs import Run, main_monitor

Kind = Literal["metric", "config", "cost", "other"]
Format = Literal["percent", "number", "seconds", "bytes", "text"]

CONFIG = "config."
NOT_COMPARED = ("config.name", "config.out", "config.resume", "config.sweep.", "config.search.", "config.callbacks.pruning.")
"""Configuration keys, or their beginnings, that say where a run is written and how it was started, not what it does."""
ENVIRONMENT = ("derived.", "data.", "git.", "versions.", "hardware.", "preprocessing.")
"""Beginnings of the keys of what else can differ."""
ABSENT = "\N{EN DASH}"
"""It is shown for a key that the configuration of a run does not have."""


@dataclass(frozen=True)
class Column:
    """Contains one value per run."""

    key: str
    """That of the record, without its first part for a configuration value; it is unique."""
    label: str
    kind: Kind
    format: Format
    values: Sequence[Any]
    """Native; None where a run has none."""

    def text(self, i: int) -> str:
        """Returns the value of run i as it is shown."""
        value = self.values[i]
        if value is None:
            return "" if self.kind in ("metric", "cost") else "null"
        if isinstance(value, bool | str) or self.format == "text":
            return shown(value)
        if self.format == "percent":
            return f"{value:.2%}"
        if self.format == "seconds":
            return clock(value)
        if self.format == "bytes":
            return f"{value / 2**20:,.0f} MiB"
        if self.kind == "config" or isinstance(value, int):
            return shown(value)
        if self.kind == "metric":
            return f"{value:.4f}" if 1e-3 <= abs(value) < 1000 else f"{value:.4g}"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def metric_columns(runs: Sequence[Run]) -> list[Column]:
    """Returns the metrics of the best epoch, that of the monitor first, followed by its value after the last epoch."""
    monitor = main_monitor(runs)
    names = dict.fromkeys(key.split(".")[1] for run in runs for key in run.record if key.startswith("formats."))
    columns = []
    for name in dict.fromkeys([monitor, *names]):
        label, percent = _format(runs, name)
        for weights in ("best", "last") if name == monitor else ("best",):
            values = [run.metric(name, weights) for run in runs]
            if any(value is not None for value in values):
                shown_as = label if weights == "best" else f"last {label}"
                columns.append(Column(f"{weights}.{name}", shown_as, "metric", "percent" if percent else "number", values))
    return columns


def _format(runs: Sequence[Run], name: str) -> tuple[str, bool]:
    """Returns label of a metric, and whether it is a percentage."""
    for run in runs:
        if f"formats.{name}.label" in run.record:
            return str(run.record[f"formats.{name}.label"]), bool(run.record.get(f"formats.{name}.percent"))
    return name, False


def cost_columns(runs: Sequence[Run]) -> list[Column]:
    """Returns what the runs needed: time, speed, memory and size."""
    costs: tuple[tuple[str, str, Format], ...] = (
        ("run.epochs", "epochs", "number"),
        ("run.images_per_second", "images/s", "number"),
        ("run.data_wait_share", "data wait", "percent"),
        ("run.peak_device_bytes", "GPU memory", "bytes"),
        ("run.peak_host_bytes", "host memory", "bytes"),
        ("run.wall_seconds", "time", "seconds"),
        ("derived.parameters", "parameters", "number"),
        ("derived.gmacs", "GMACs", "number"),
    )
    columns = [Column(key, label, "cost", format_, [_number(run, key) for run in runs]) for key, label, format_ in costs]
    return [column for column in columns if any(value is not None for value in column.values)]


def _number(run: Run, key: str) -> float | int | None:
    value = run.record.get(key)
    return value if isinstance(value, int | float) else None


def config_columns(runs: Sequence[Run]) -> list[Column]:
    """Returns the configuration values that differ between the runs, those first that a sweep or a command has set."""
    keys = [key for key in _differing(runs, (CONFIG,)) if not key.startswith(NOT_COMPARED)]
    overrides = [override for run in runs for override in run.record.get("run.differs") or ()]
    given = list(dict.fromkeys(override.lstrip("+~").partition("=")[0] for override in overrides))
    set_by = {key: [i for i, name in enumerate(given) if f"{key}.".startswith(f"{CONFIG}{name}.")] for key in keys}
    keys.sort(key=lambda key: min(set_by[key], default=len(given)))
    return [_column(runs, key, key.removeprefix(CONFIG), "config") for key in keys]


def environment_columns(runs: Sequence[Run]) -> list[Column]:
    """Returns what else differs: derived values, data, versions, machines and the state of the checkout."""
    return [_column(runs, key, key, "other") for key in _differing(runs, ENVIRONMENT)]


def _column(runs: Sequence[Run], key: str, name: str, kind: Kind) -> Column:
    values = [run.record.get(key, ABSENT) for run in runs]
    is_number = all(type(value) in (int, float) for value in values if value not in (None, ABSENT))
    return Column(name, name, kind, "number" if is_number else "text", values)


def _differing(runs: Sequence[Run], beginnings: tuple[str, ...]) -> list[str]:
    keys = dict.fromkeys(key for run in runs for key in run.record if key.startswith(beginnings))
    return [key for key in keys if len({repr(run.record.get(key, ABSENT)) for run in runs}) > 1]


def shown(value: Any) -> str:
    """Returns a configuration value as it is written in YAML, with numbers of few digits."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return short_number(value) if isinstance(value, int | float) else str(value)


def short_number(value: float) -> str:
    """Returns a number with five significant digits; integers have all."""
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else f"{value:.5g}"


def clock(seconds: float) -> str:
    """Returns a time, such as 1:02:03 or 48 s."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def state_of(run: Run) -> str:
    """Returns the state of a run with its reason."""
    reason = run.record.get("run.reason")
    return f"{run.record['run.state']}: {reason}" if reason else str(run.record["run.state"])


def progress_of(run: Run) -> str:
    """Returns the epochs of a run, such as 3/28."""
    total = run.record.get("derived.epochs")
    return f"{run.record['run.epochs']}/{total if total is not None else '?'}"
