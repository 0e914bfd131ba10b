"""The summary that a run prints at its end, and a sweep after its last run."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich

from swin_lab.report.tables import print_rows, print_table


def print_training(result: Mapping[str, Any], eval_command: str) -> None:
    """Prints the metrics of the best checkpoint, the speed, and the next commands.

    Args:
        result: the contents of results.json.
        eval_command: the command that evaluates a checkpoint, such as `python eval.py`.
    """
    rows = _metric_rows(result)
    rows += [("checkpoint", _origin(result)), *_last_epoch(result), ("preset", result["preprocessing"]["description"])]
    if result["images_per_second"] is not None:
        rows += [("speed", f"{result['images_per_second']:,.0f} images/s in training")]
    if result["data_time"] is not None:
        rows += [("data", f"{result['data_time']:.0%} of the training time was waiting for images")]
    rows += [("time", f"{result['wall_seconds']:.0f} s")]
    rows += _skipped(result)
    run_dir = shorter(result["run_dir"])
    print_rows(rows, title=run_dir)
    print_command("dashboard", shlex.join(["tensorboard", "--logdir", shorter(Path(result["run_dir"]).parent.parent)]))
    print_command("evaluate", f"{eval_command} {shlex.quote(f'checkpoint={run_dir}')}")


def print_evaluation(result: Mapping[str, Any]) -> None:
    """Prints the metrics of an evaluation and where its files are."""
    rows = _metric_rows(result)
    rows += [("preset", result["preprocessing"]["description"])]
    rows += [("images", f"{result['images']} of {result['data']['val_images']}")]
    rows += _skipped(result)
    print_rows(rows, title=shorter(result["checkpoint"]))
    print_command("results", shorter(result["run_dir"]))


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
    first = finished[0].result if finished else None
    formats = first["metric_formats"] if first is not None else {}
    rows = []
    for job in [*sorted(finished, key=_rank), *others]:
        differs = " ".join(override for override in job.overrides if override not in common)
        metrics = job.result["metrics"] if job.result is not None else {}
        shown = [_shown(formats[name], metrics[name]) if name in metrics else "" for name in formats]
        path = os.path.relpath(job.result["run_dir"], folder) if job.result is not None else str(job.number)
        rows.append([path, differs, *shown, *([job.state] if others else [])])
    columns = ["run", "differs by", *(format_["label"] for format_ in formats.values()), *(["state"] if others else [])]
    print_table(columns, rows, title=f"Sweep {shorter(folder)}, best first", left=("state",))


def _rank(job: SweepJob) -> float:
    """Returns the monitored metric of a finished job, negative if greater is better."""
    assert job.result is not None
    monitor = job.result["monitor"]
    return float((-1 if monitor["mode"] == "max" else 1) * job.result["metrics"][monitor["metric"]])


def shorter(path: str | Path) -> str:
    """Returns a path relative to the current directory, if that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _origin(result: Mapping[str, Any]) -> str:
    if result["best_epoch"] is None:
        return f"the last weights ({result['images']} images)"
    by = result["metric_formats"][result["monitor"]["metric"]]["label"]
    return f"epoch {result['best_epoch']} of {result['epochs']}, the best by {by} ({result['images']} images)"


def _last_epoch(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the metric that has chosen the best epoch, after the last one: on the same images, the best is biased upwards."""
    last, metric = result["last_evaluation"], result["monitor"]["metric"]
    if last is None or metric not in last["metrics"]:
        return []
    format_ = result["metric_formats"][metric]
    unless_last = "" if last["epoch"] == result["epochs"] else f" after epoch {last['epoch']}, the last evaluated one"
    return [("last epoch", f"{format_['label']} {_shown(format_, last['metrics'][metric])}{unless_last}")]


def _metric_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    formats = result["metric_formats"]
    return [(formats[name]["label"], _shown(formats[name], result["metrics"][name])) for name in formats]


def _skipped(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what a run has left out, if there is anything."""
    what = {"skipped": "unreadable images", "skipped_updates": "updates with a loss or gradient that is NaN or infinite"}
    return [("skipped", f"{count} {text}, named in run.log") for key, text in what.items() if (count := result.get(key))]


def _shown(format_: Mapping[str, Any], value: float) -> str:
    return f"{value:.4%}" if format_["percent"] else f"{value:.6f}"


def print_command(label: str, command: str) -> None:
    """Prints a command unwrapped, so that it can be copied."""
    rich.get_console().print(f"{label:<10} {command}", markup=False, highlight=False, soft_wrap=True)
