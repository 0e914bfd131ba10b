"""metrics.csv: each record is on the disk at once, and a resumed run goes on after the records of its checkpoint."""

import csv
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from swin_lab.training import Position
from swin_lab.training.checkpoint_io import UNFINISHED

METRICS = "metrics.csv"
OF_UPDATES = "train/loss"
"""Column that the records of updates have, and those of evaluations have not."""

Rows = Sequence[dict[str, str]]


def csv_logger_of(run_dir: Path, resumed: Position | None) -> tuple[CSVLogger, Rows]:
    """Builds the logger of metrics.csv.

    Args:
        run_dir: the run directory.
        resumed: where a resumed run goes on. If None, it starts.

    Returns:
        The logger, and the records that the processes before have logged, without those that follow the checkpoint: they are
        removed, because the run logs them again.
    """
    logger = CSVLogger(run_dir, name="", version="", flush_logs_every_n_steps=1)
    if not is_first_process():
        return logger, []
    columns, rows = read_rows(run_dir / METRICS) if resumed is not None else ([], [])
    writer = _WholeWriter(str(run_dir))  # It deletes the file of an earlier process.
    kept = [row for row in rows if resumed is not None and belongs_before(row, resumed)]
    if kept:
        writer.metrics_keys = columns
        writer.write_rows(kept)
    logger._experiment = writer
    return logger, kept


def is_first_process() -> bool:
    """Returns whether this process is the one that logs, of those of a run on several devices."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def read_rows(file: Path) -> tuple[list[str], Rows]:
    """Returns columns and records of metrics.csv; a last record that was not written to its end is left out."""
    if not file.is_file():
        return [], []
    with file.open(newline="") as opened:
        reader = csv.DictReader(opened)
        rows = list(reader)
        return list(reader.fieldnames or ()), [row for row in rows if None not in row.values() and None not in row]


def belongs_before(row: dict[str, str], position: Position) -> bool:
    """Returns whether a record was logged before a run has reached a place: those of update n have the step n - 1."""
    step = int(row["step"]) if row.get("step", "").isdigit() else position.updates
    if position.evaluation == "due" and step == position.updates - 1:
        return bool(row.get(OF_UPDATES))
    return step < position.updates


class _WholeWriter(ExperimentWriter):
    """Replaces the file at once when a new column is added, which Lightning's own class does in place."""

    def save(self) -> None:
        """Writes the records since the last call."""
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)  # Someone may have removed the run directory.
        super().save()

    def write_rows(self, rows: Rows) -> None:
        """Writes a file of these rows."""
        file = Path(self.metrics_file_path)
        unfinished = file.with_name(file.name + UNFINISHED)
        with unfinished.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)
        unfinished.replace(file)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        _, rows = read_rows(Path(self.metrics_file_path))
        self.write_rows(rows)
