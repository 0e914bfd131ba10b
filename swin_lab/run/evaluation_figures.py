"""What an evaluation has found besides its metrics, for its record, its figures and its page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swin_lab.data import ImageData
from swin_lab.preprocessing import Preprocessing
from swin_lab.report import draw_heatmap, draw_images, print_table
from swin_lab.report.calibration import Reliability, draw_reliability, reliability
from swin_lab.report.evaluation import Curve, Matrix, Sheet, Table, write_page
from swin_lab.run.gallery import MAX_SHOWN, grids_of, readable
from swin_lab.run.results import columns_of
from swin_lab.run.temperature import Calibration
from swin_lab.training import Engine, PredictionCollector, Presentation

MAX_PRINTED = 10
"""Rows of a table that are printed at most."""


@dataclass(frozen=True)
class Findings:
    """Contains what an evaluation has found."""

    presentation: Presentation
    intervals: Mapping[str, tuple[float, float]]
    """Metric -> lower and upper bound."""
    sheets: Mapping[str, Sheet]
    """Name of a file -> images."""
    curve: Reliability | None
    """Confidence and accuracy, as evaluated."""
    calibration: Calibration | None
    """What a temperature changes."""
    num_images: int

    def print_tables(self) -> None:
        """Prints the first rows of every table."""
        for table in self.presentation.tables:
            cut = "" if len(table.rows) <= MAX_PRINTED else f": {MAX_PRINTED} of {len(table.rows):,}"
            print_table(table.columns, table.rows[:MAX_PRINTED], title=table.title + cut)

    def draw(self, folder: Path) -> None:
        """Writes the figures into a folder; raises UserError if a file cannot be written."""
        for heatmap in self.presentation.heatmaps:
            file = folder / heatmap.file_name
            draw_heatmap(
                heatmap.counts, heatmap.names, file, row=heatmap.row_label, column=heatmap.column_label, title=heatmap.title
            )
        for name, sheet in self.sheets.items():
            draw_images(sheet.images, sheet.captions, folder / f"{name}.png", title=sheet.title, columns=sheet.columns)
        if self.curve is not None:
            draw_reliability(self.curve, folder / "reliability.png", title=f"{self.num_images:,} images")

    def record(self) -> dict[str, Any]:
        """Returns the part of results.json, nested."""
        found: dict[str, Any] = {
            "intervals": {name: {"low": low, "high": high} for name, (low, high) in self.intervals.items()}
        }
        if self.curve is not None:
            found["calibration"] = {"ece": self.curve.ece}
        if (scaled := self.calibration) is not None:
            found["calibration"] |= {
                "temperature": scaled.temperature,
                "same_images": scaled.same_images,
                "without_temperature": {"ece": scaled.without.ece, "loss": scaled.loss_without},
                "with_temperature": {"ece": scaled.with_it.ece, "loss": scaled.loss_with},
            }
        return found | {name: columns_of(value) for name, value in self.presentation.record.items()}

    def write_page(self, record: Mapping[str, Any], file: Path) -> None:
        """Writes the evaluation as one HTML page; raises UserError if the file cannot be written.

        Args:
            record: the contents of results.json.
            file: a new file.
        """
        shown = self.presentation
        write_page(
            record,
            file,
            tables=[Table(table.title, table.columns, table.rows) for table in shown.tables],
            matrices=[
                Matrix(map_.title, map_.counts, map_.names, map_.row_label, map_.column_label) for map_ in shown.heatmaps
            ],
            curves=self._curves(),
            sheets=list(self.sheets.values()),
        )

    def _curves(self) -> list[Curve]:
        if self.calibration is not None:
            scaled = self.calibration
            return [
                Curve("without temperature", scaled.without),
                Curve(f"with the temperature {scaled.temperature:.3g}", scaled.with_it),
            ]
        return [Curve("", self.curve)] if self.curve is not None else []


def find(
    engine: Engine,
    collector: PredictionCollector,
    data_module: ImageData,
    preprocessing: Preprocessing,
    calibration: Calibration | None,
) -> Findings:
    """Collects what an evaluation has found.

    Args:
        engine: has evaluated.
        collector: has the predictions; without columns if the task predicts nothing.
        data_module: has the validation images, and decodes them.
        preprocessing: tells how colours were normalised.
        calibration: what a temperature changes, if there is one.
    """
    task, result = engine.task, engine.result
    columns, images = collector.columns, data_module.source.val
    galleries = task.galleries(columns, MAX_SHOWN) if columns else {}
    shown = {name: (gallery.title, readable(gallery.images, images, data_module.decode)) for name, gallery in galleries.items()}
    sheets = grids_of(task, result.arrays, preprocessing)
    sheets |= {name: Sheet(title, *found) for name, (title, found) in shown.items() if found[0]}
    judged: tuple[np.ndarray, np.ndarray] | None = task.confidences(columns) if columns else None
    return Findings(
        task.present(result.arrays),
        {name: ends for name, ends in task.intervals(columns).items() if f"val/{name}" in result.metrics},
        sheets,
        None if judged is None else reliability(*judged),
        calibration,
        result.num_images,
    )
