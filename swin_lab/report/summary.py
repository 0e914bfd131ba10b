"""What a run prints at its end, and a sweep after its last run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich
from rich.markup import escape
from rich.table import Table

NAMES = {
    "val/acc1": "top-1",
    "val/acc5": "top-5",
    "val/loss": "loss",
    "val/real_acc1": "ReaL top-1",
    "val/real_acc5": "ReaL top-5",
    "val_ema/acc1": "average: top-1",
    "val_ema/acc5": "average: top-5",
    "val_ema/loss": "average: loss",
}


def print_training(result: dict[str, Any]) -> None:
    """Metrics of the best checkpoint, speed, and where to go from here.

    Args:
        result: what results.json holds.
    """
    rows = _metric_rows(result["metrics"])
    rows += [("from", _origin(result)), ("preset", result["preprocessing"]["in_words"])]
    if result["images_per_second"] is not None:
        rows += [("speed", f"{result['images_per_second']:,.0f} images/s in training")]
    if result["data_wait"] is not None:
        rows += [("data", f"{result['data_wait']:.0%} of the training time was waiting for images")]
    rows += [("time", f"{result['wall_seconds']:.0f} s")]
    rows += [("skipped", f"{result['skipped']} unreadable images, named in run.log")] if result["skipped"] else []
    run_dir = shorter(result["run_dir"])
    _print_rows(rows, title=run_dir)
    _print_command("dashboard", f"tensorboard --logdir {shorter(Path(result['run_dir']).parent.parent)}")
    _print_command("evaluate", f"python eval.py checkpoint={run_dir}")


def print_evaluation(result: dict[str, Any]) -> None:
    """Metrics and where the files are."""
    rows = _metric_rows(result["metrics"])
    rows += [("preset", result["preprocessing"]["in_words"])]
    rows += [("images", f"{result['images']} of {result['data']['val_images']}")]
    rows += [("skipped", f"{result['skipped']} unreadable images, named in run.log")] if result["skipped"] else []
    _print_rows(rows, title=shorter(result["checkpoint"]))
    _print_command("results", shorter(result["run_dir"]))


def print_sweep(results: Sequence[dict[str, Any]]) -> None:
    """One line per run, best first, with the overrides in which the runs differ."""
    common = set.intersection(*(set(result["overrides"]) for result in results))
    sweep = Path(results[0]["run_dir"]).parent
    table = Table(title=escape(f"Sweep {shorter(sweep)}, best first"), title_justify="left", title_style="bold")
    metrics = [name for name in NAMES if name in results[0]["metrics"]]
    for column in ("run", "differs by", *(NAMES[name] for name in metrics)):
        table.add_column(column, overflow="fold")
    for result in sorted(results, key=lambda result: -result["metrics"]["val/acc1"]):
        differs = " ".join(override for override in result["overrides"] if override not in common)
        run = os.path.relpath(result["run_dir"], sweep)
        table.add_row(run, escape(differs), *(_shown(name, result["metrics"][name]) for name in metrics))
    rich.get_console().print(table)


def shorter(path: str | Path) -> str:
    """Relative to where the user is, if that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _origin(result: dict[str, Any]) -> str:
    if result["best_epoch"] is None:
        return f"the last weights ({result['images']} images)"
    by = "the top-1 of its average" if "val_ema/acc1" in result["metrics"] else "top-1"
    return f"epoch {result['best_epoch']} of {result['epochs']}, the best by {by} ({result['images']} images)"


def _metric_rows(metrics: dict[str, float]) -> list[tuple[str, str]]:
    return [(NAMES[name], _shown(name, metrics[name])) for name in NAMES if name in metrics]


def _shown(name: str, value: float) -> str:
    return f"{value:.4%}" if "acc" in name else f"{value:.6f}"


def _print_command(name: str, command: str) -> None:
    """Unwrapped, so that it can be copied."""
    rich.get_console().print(f"{name:<10} {command}", markup=False, highlight=False, soft_wrap=True)


def _print_rows(rows: Sequence[tuple[str, str]], title: str) -> None:
    table = Table(show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value))
    rich.get_console().print(f"\n{title}", markup=False, highlight=False, soft_wrap=True)
    rich.get_console().print(table)
