"""The comparison as a table in the terminal, and as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

import rich

from swin_lab.errors import UserError, printable
from swin_lab.record import FINISHED
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
    """Prints one line per run, best first, with metrics and the configuration values that differ.

    Of columns that do not fit into the terminal, only the names are printed.
    """
    config, metrics = config_columns(runs), metric_columns(runs)
    costs = [column for column in cost_columns(runs) if column.key in COSTS]
    shown = [("run", [run.place for run in runs]), ("epochs", [progress_of(run) for run in runs])]
    if any(run.record["run.state"] != FINISHED for run in runs):
        shown.insert(1, ("state", [state_of(run) for run in runs]))
    # The less important a column is, the later it comes, and the sooner it is left out.
    chosen, left_out = list(shown), []
    for column in [*metrics[:1], *config[:MAX_KEYS], *metrics[1:], *costs]:
        texts = [column.text(i) for i in range(len(runs))]
        if _width([*chosen, (_head(column.label), texts)]) <= rich.get_console().width:
            chosen.append((_head(column.label), texts))
        else:
            left_out.append(column.label)
    title = f"{len(runs)} run{'s' * (len(runs) > 1)}, best first by {metrics[0].label}" if metrics else f"{len(runs)} runs"
    rows = [[printable(texts[i]) for _, texts in chosen] for i in range(len(runs))]
    print(title)
    print_table([head for head, _ in chosen], rows, left=("state",), framed=False)
    if left_out or len(config) > MAX_KEYS:
        print(f"not shown: {', '.join([*left_out, *(column.key for column in config[MAX_KEYS:])])}")


def _head(label: str) -> str:
    """Returns the name of a column with the last part of a key on a line of its own."""
    beginning, dot, last = label.rpartition(".")
    return f"{beginning}{dot}\n{last}" if dot else label


def _width(columns: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Returns the width of a table without lines."""
    return sum(max(len(line) for text in (head, *texts) for line in text.split("\n")) + 2 for head, texts in columns)


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
