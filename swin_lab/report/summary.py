"""The summary that a run prints at its end, and a sweep after its last run."""

import os
import shlex
from collections.abc import Mapping, Sequence
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


def print_sweep(results: Sequence[Mapping[str, Any]]) -> None:
    """Prints one line per run, best first, with the overrides in which the runs differ."""
    common = set.intersection(*(set(result["overrides"]) for result in results))
    sweep = Path(results[0]["run_dir"]).parent
    formats, monitor = results[0]["metric_formats"], results[0]["monitor"]
    sign = -1 if monitor["mode"] == "max" else 1
    rows = []
    for result in sorted(results, key=lambda result: sign * result["metrics"][monitor["metric"]]):
        differs = " ".join(override for override in result["overrides"] if override not in common)
        shown = [_shown(formats[name], result["metrics"][name]) for name in formats]
        rows.append([os.path.relpath(result["run_dir"], sweep), differs, *shown])
    columns = ["run", "differs by", *(format_["label"] for format_ in formats.values())]
    print_table(columns, rows, title=f"Sweep {shorter(sweep)}, best first")


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
