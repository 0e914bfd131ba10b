"""The page of an evaluation: metrics with intervals, tables, calibration, confusions, images, and the record."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from swin_lab.errors import printable
from swin_lab.report.calibration import BINS, Reliability
from swin_lab.report.heatmap import grouped
from swin_lab.report.html import SHARED, image_address, write_html
from swin_lab.report.images import COLUMNS
from swin_lab.report.summary import final_metrics, shorter

ASSETS = (*SHARED, *(f"evaluation/{name}" for name in ("page.css", "page.html", "page.js")))
MAX_NAME = 40
MAX_TEXT = 400
"""Characters of a name in a figure, and of a value of the record, above which they are cut off."""
SIDE = 192
"""Pixels of the longer side of an image at most."""


@dataclass(frozen=True)
class Table:
    """Contains a table; its rows can be sorted on the page."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Matrix:
    """Contains a matrix of counts."""

    title: str
    counts: np.ndarray
    """(N, N), [row, column]."""
    names: Sequence[str]
    row: str
    column: str


@dataclass(frozen=True)
class Curve:
    """Contains a curve of the reliability diagram."""

    label: str
    reliability: Reliability


@dataclass(frozen=True)
class Sheet:
    """Contains images that belong together."""

    title: str
    images: Sequence[np.ndarray]
    """(H, W, 3) of uint8, of any sizes."""
    captions: Sequence[str]
    columns: int = COLUMNS
    """Images in a row: as many as belong together, if there are fewer than usual."""


def write_page(
    record: Mapping[str, Any],
    file: Path,
    *,
    tables: Sequence[Table],
    matrices: Sequence[Matrix],
    curves: Sequence[Curve],
    sheets: Sequence[Sheet],
) -> None:
    """Writes the page.

    Args:
        record: the contents of results.json.
        file: the page; an existing file is replaced.
        tables: what can be sorted.
        matrices: such as the confusion matrix; many classes are shown in groups.
        curves: of the reliability diagram: one, or two without and with a temperature. If empty, there is no diagram.
        sheets: such as the most confident mistakes.

    Raises:
        UserError: the file cannot be written, or Plotly is not installed.
    """
    data = {
        "checkpoint": shorter(record["checkpoint"]),
        "about": about(record),
        "metrics": [_metric(record, *metric) for metric in final_metrics(record)],
        "tables": [
            {"title": table.title, "columns": list(table.columns), "rows": [*map(list, table.rows)]} for table in tables
        ],
        "matrices": [_matrix(matrix) for matrix in matrices],
        "curves": [_curve(curve) for curve in curves],
        "same_images": record.get("calibration.same_images", False),
        "sheets": [_sheet(sheet) for sheet in sheets],
        "record": [[key, _text(value)] for key, value in record.items()],
    }
    title = f"Evaluation of {Path(record['checkpoint']).name}"
    write_html(file, title=title, data=data, assets=ASSETS)


def about(record: Mapping[str, Any]) -> str:
    """Returns one line: which images, how they were preprocessed, and when."""
    images, source = record["run.images"], record["data.source"]
    return f"{images:,} images of {source}, {record['preprocessing.description']}; {record['run.ended']}"


def _metric(record: Mapping[str, Any], name: str, label: str, value: str) -> dict[str, Any]:
    low, high = (record.get(f"intervals.{name}.{end}") for end in ("low", "high"))
    if low is None:
        return {"label": label, "value": value, "interval": ""}
    ends = f"{low:.2%} to {high:.2%}" if record[f"formats.{name}.percent"] else f"{low:.4f} to {high:.4f}"
    return {"label": label, "value": value, "interval": ends}


def _matrix(matrix: Matrix) -> dict[str, Any]:
    names = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in map(printable, matrix.names)]
    counts, labels = grouped(matrix.counts, names)
    entries = {"title": matrix.title, "row": matrix.row, "column": matrix.column, "classes": len(names)}
    return entries | {"counts": counts.tolist(), "names": labels}


def _curve(curve: Curve) -> dict[str, Any]:
    values = curve.reliability
    return {
        "label": curve.label,
        "ece": values.ece,
        "bins": BINS,
        "images": values.images.tolist(),
        "confidence": values.confidence.tolist(),
        "accuracy": values.accuracy.tolist(),
    }


def _sheet(sheet: Sheet) -> dict[str, Any]:
    images = [Image.fromarray(pixels) for pixels in sheet.images]
    for image in images:
        image.thumbnail((SIDE, SIDE))
    return {
        "title": sheet.title,
        "images": [image_address(image) for image in images],
        "captions": list(sheet.captions),
        "columns": sheet.columns if sheet.columns < COLUMNS else None,
    }


def _text(value: Any) -> str:
    """Returns a value of the record as it is written in results.json, or the start of it."""
    text = printable(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
