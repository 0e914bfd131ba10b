"""The comparison as one HTML file that needs no network: Plotly, the data and the code of the page are inside."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from swin_lab.report.compare.columns import (
    Column,
    config_columns,
    cost_columns,
    environment_columns,
    metric_columns,
    progress_of,
    state_of,
)
from swin_lab.report.compare.curves import Curve, read_curves
from swin_lab.report.compare.predictions import compare_predictions
from swin_lab.report.compare.runs import Run, greater_is_better, main_monitor
from swin_lab.report.html import SHARED, write_html

ASSETS = (*SHARED, *(f"compare/{name}" for name in ("page.css", "page.html", "page.js", "page_details.js")))
MAX_POINTS = 60_000
"""Number of points of all runs for one metric, at most."""
POINTS_PER_CURVE = 100, 1000
"""Lower and upper limit of the number of points of a curve."""


def write_page(runs: Sequence[Run], file: Path) -> None:
    """Writes the page.

    Args:
        runs: best first, as `read_runs` returns them.
        file: the page; an existing file is replaced.

    Raises:
        UserError: the file cannot be written, or plotly is not installed.
    """
    title = f"{len(runs)} run{'s' * (len(runs) != 1)} of swin_lab"
    write_html(file, title=title, data=page_data(runs), assets=ASSETS)


def page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns everything that the page shows, in plain Python.

    Args:
        runs: best first.
    """
    low, high = POINTS_PER_CURVE
    max_points = min(max(MAX_POINTS // len(runs), low), high)
    columns = [*metric_columns(runs), *config_columns(runs), *cost_columns(runs)]
    return {
        "generated": datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        "monitor": main_monitor(runs),
        "greater": greater_is_better(runs),
        "runs": [_run(run, max_points) for run in runs],
        "columns": [_column(column, len(runs)) for column in columns],
        "environment": [_column(column, len(runs)) for column in environment_columns(runs)],
        "predictions": compare_predictions(runs),
    }


def _run(run: Run, max_points: int) -> dict[str, Any]:
    curves = read_curves(run.folder, max_points)
    per_epoch = run.record.get("derived.updates_per_epoch") or curves.updates_per_epoch
    return {
        "label": run.label,
        "place": run.place,
        "folder": str(run.folder),
        "state": state_of(run),
        "progress": progress_of(run),
        "started": run.record.get("run.started"),
        "updates_per_epoch": per_epoch,
        "curves": {name: _curve(curve) for name, curve in curves.by_metric.items()},
    }


def _curve(curve: Curve) -> dict[str, Any]:
    seconds = None if curve.seconds is None else [round(value, 1) for value in curve.seconds.tolist()]
    return {
        "updates": curve.updates.tolist(),
        "seconds": seconds,
        "values": [float(f"{value:.5g}") for value in curve.values.tolist()],
    }


def _column(column: Column, count: int) -> dict[str, Any]:
    return {
        "key": column.key,
        "label": column.label,
        "kind": column.kind,
        "format": column.format,
        "values": list(column.values),
        "texts": [column.text(i) for i in range(count)],
    }
