"""The comparison as a table in the terminal, and as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

from swin_lab.errors import UserError, printable
from swin_lab.report.compare.columns import config_columns, cost_columns, metric_columns, progress_of, shown, state_of
from swin_lab.report.compare.runs import Run
from swin_lab.report.tables import print_table

MAX_KEYS = 8
"""Number of configuration keys that the terminal shows at most."""
COSTS = ("run.images_per_second", "run.peak_device_bytes", "run.wall_seconds")
"""Costs that the terminal shows."""
COUNTED = ("run.state", "run.reason", "run.name", "run.group", "run.job", "run.id", "run.started", "run.epochs", "run.updates")
"""Columns of the CSV file, besides metrics, costs and configuration."""


def print_runs(runs: Sequence[Run]) -> None:
    """Prints one line per run, best first, with metrics and the configuration values that differ."""
    config, metrics = config_columns(runs), metric_columns(runs)
    costs = [column for column in cost_columns(runs) if column.key in COSTS]
    columns = [*metrics, *config[:MAX_KEYS], *costs]
    rows = []
    for i, run in enumerate(runs):
        cells = [column.text(i) for column in columns]
        rows.append([run.place, state_of(run), *cells, progress_of(run)])
    names = ["run", "state", *(column.label for column in columns), "epochs"]
    title = f"{len(runs)} run{'s' * (len(runs) > 1)}, best first by {metrics[0].label}" if metrics else f"{len(runs)} runs"
    print_table(names, [[printable(cell) for cell in row] for row in rows], title=title, left=("state",))
    if len(config) > MAX_KEYS:
        print(f"{len(config) - MAX_KEYS} more keys differ: {', '.join(column.key for column in config[MAX_KEYS:])}")


def write_csv(runs: Sequence[Run], file: Path) -> None:
    """Writes one line per run: its directory and state, all its metrics, its costs, and the configuration values that differ.

    Numbers have all their digits and metrics are fractions; the columns have the keys of results.json.

    Raises:
        UserError: the file cannot be written.
    """
    metrics = dict.fromkeys(key for run in runs for key in run.record if key.startswith("metrics."))
    costs = [column.key for column in cost_columns(runs) if column.key not in COUNTED]
    config = [f"config.{column.key}" for column in config_columns(runs)]
    keys = [*COUNTED, *metrics, *costs, *config]
    try:
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow(["directory", *keys])
            for run in runs:
                writer.writerow([run.folder, *(_cell(run.record.get(key, "")) for key in keys)])
    except OSError as error:
        raise UserError(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from error


def _cell(value: object) -> object:
    return "" if value is None else shown(value) if isinstance(value, bool | list) else value
