"""The summary that a run prints at its end, and a sweep after its last run."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich

from swin_lab.record import monitored
from swin_lab.report.tables import print_rows, print_table


def print_training(record: Mapping[str, Any]) -> None:
    """Prints the metrics of the best checkpoint, the speed, and the next commands.

    Args:
        record: the contents of results.json.
    """
    rows = _metric_rows(record)
    rows += [("checkpoint", _origin(record)), *_last_epoch(record), ("preset", record["preprocessing.description"])]
    if record["run.images_per_second"] is not None:
        rows += [("speed", f"{record['run.images_per_second']:,.0f} images/s in training")]
    if record["run.data_wait_share"] is not None:
        rows += [("data", f"{record['run.data_wait_share']:.0%} of the training time was waiting for images")]
    rows += [("time", f"{record['run.wall_seconds']:.0f} s")]
    rows += _skipped(record)
    run_dir = shorter(record["run.directory"])
    print_rows(rows, title=run_dir)
    print_command("dashboard", shlex.join(["tensorboard", "--logdir", shorter(Path(record["run.directory"]).parent.parent)]))
    print_command("evaluate", f"{record['run.eval_command']} {shlex.quote(f'checkpoint={run_dir}')}")


def print_evaluation(record: Mapping[str, Any]) -> None:
    """Prints the metrics of an evaluation and where its files are."""
    rows = _metric_rows(record)
    rows += [("preset", record["preprocessing.description"])]
    if "calibration.ece" in record:
        rows += [("calibration", _calibration(record))]
    rows += [("images", f"{record['run.images']} of {record['data.val_images']}")]
    rows += _skipped(record)
    print_rows(rows, title=shorter(record["checkpoint"]))
    print_command("results", shorter(record["run.directory"]))


def final_metrics(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns name, label and value of each metric of an evaluation, as they are printed and in that order."""
    names = [key.split(".")[1] for key in record if key.startswith("formats.") and key.endswith(".label")]
    return [(name, *_shown(record, "final", name)) for name in names if f"metrics.final.{name}" in record]


def _calibration(record: Mapping[str, Any]) -> str:
    """Returns the expected calibration error, and what a temperature changes."""
    if "calibration.temperature" not in record:
        return f"expected error {record['calibration.ece']:.2%}"
    before, after = (record[f"calibration.{which}_temperature.ece"] for which in ("without", "with"))
    fitted = ", fitted on the same images" if record["calibration.same_images"] else ""
    return f"expected error {before:.2%}; {after:.2%} with the temperature {record['calibration.temperature']:.4g}{fitted}"


@dataclass(frozen=True)
class SweepJob:
    """Describes the state of a job of a sweep."""

    number: int
    overrides: tuple[str, ...]
    state: str
    """Such as "finished" or "failed: ..."."""
    result: Mapping[str, Any] | None
    """Contents of results.json; None if the job has none."""


def print_sweep(folder: Path, jobs: Sequence[SweepJob]) -> None:
    """Prints one line per job with the overrides in which the jobs differ: finished ones, best first, and then the others.

    Args:
        folder: directory of the sweep.
        jobs: its jobs.
    """
    finished = [job for job in jobs if job.result is not None]
    others = [job for job in jobs if job.result is None]
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    shown = list(dict.fromkeys(name for job in finished for name in _final(job.result)))
    rows = []
    for job in [*sorted(finished, key=_rank), *others]:
        differs = " ".join(override for override in job.overrides if override not in common)
        metrics = _final(job.result)
        values = [metrics[name][1] if name in metrics else "" for name in shown]
        path = os.path.relpath(job.result["run.directory"], folder) if job.result is not None else str(job.number)
        rows.append([path, differs, *values, *([job.state] if others else [])])
    columns = ["run", "differs by", *shown, *(["state"] if others else [])]
    print_table(columns, rows, title=f"Sweep {shorter(folder)}, best first", left=("state",))


def _rank(job: SweepJob) -> float:
    """Returns the monitored metric of a finished job, negative if greater is better."""
    assert job.result is not None
    return (-1 if job.result["derived.monitor_mode"] == "max" else 1) * monitored(job.result)


def shorter(path: str | Path) -> str:
    """Returns a path relative to the current directory, if that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _origin(record: Mapping[str, Any]) -> str:
    if record["metrics.final.of"] == "last":
        return f"the last weights ({record['run.images']} images)"
    by = ("EMA " if record["derived.monitor_weights"] == "ema" else "") + record[f"formats.{record['derived.monitor']}.label"]
    epoch = record["metrics.final.epoch"]
    return f"epoch {epoch} of {record['run.epochs']}, the best by {by} ({record['run.images']} images)"


def _last_epoch(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the metric that has chosen the best epoch, after the last one: on the same images, the best is biased upwards."""
    weights = "last_ema" if record["derived.monitor_weights"] == "ema" else "last"
    metric = record["derived.monitor"]
    if f"metrics.{weights}.{metric}" not in record:
        return []
    label, value = _shown(record, weights, metric)
    epoch = record[f"metrics.{weights}.epoch"]
    unless_last = "" if epoch == record["run.epochs"] else f" after epoch {epoch}, the last evaluated one"
    return [("last epoch", f"{label} {value}{unless_last}")]


def _metric_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(_final(record).values())


def _final(record: Mapping[str, Any] | None) -> dict[str, tuple[str, str]]:
    """Returns the metrics of the final evaluation by label: label and value as they are printed, in their order."""
    if record is None:
        return {}
    names = [key.split(".")[1] for key in record if key.startswith("formats.") and key.endswith(".label")]
    pairs = [(weights, name) for weights in ("final", "final_ema") for name in names]
    found = [_shown(record, weights, name) for weights, name in pairs if f"metrics.{weights}.{name}" in record]
    return {label: (label, value) for label, value in found}


def _shown(record: Mapping[str, Any], weights: str, metric: str) -> tuple[str, str]:
    """Returns label and value of a metric as they are printed."""
    value, label = record[f"metrics.{weights}.{metric}"], record[f"formats.{metric}.label"]
    text = f"{value:.4%}" if record[f"formats.{metric}.percent"] else f"{value:.6f}"
    return ("EMA " if weights.endswith("_ema") else "") + label, text


def _skipped(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what a run has left out, if there is anything."""
    what = {"images": "unreadable images", "updates": "updates with a loss or gradient that is NaN or infinite"}
    counts = {key: record.get(f"run.skipped_{key}") for key in what}
    return [("skipped", f"{count} {what[key]}, named in run.log") for key, count in counts.items() if count]


def print_command(label: str, command: str) -> None:
    """Prints a command unwrapped, so that it can be copied."""
    rich.get_console().print(f"{label:<10} {command}", markup=False, highlight=False, soft_wrap=True)
