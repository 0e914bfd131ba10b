"""Presentation and record of an evaluation, for any task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swin_lab.preprocessing import Preprocessing
from swin_lab.report import draw_grid, draw_heatmap, print_table
from swin_lab.training import EvaluationResult, ImageGrid, Task
from swin_lab.training.engine import VAL_EMA


def metric_formats(task: Task, metrics: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Returns label and format of every metric, by full name, in the order in which they are printed."""
    formats = {}
    for name in metrics:
        prefix, _, metric = name.partition("/")
        label = task.metric_formats[metric].label
        full_label = f"EMA {label}" if prefix == VAL_EMA else label
        formats[name] = {"label": full_label, "percent": task.metric_formats[metric].percent}
    return formats


def present(task: Task, result: EvaluationResult, preprocessing: Preprocessing, folder: Path) -> dict[str, Any]:
    """Prints the tables of an evaluation, draws its figures into a folder, and returns their part of results.json."""
    presentation = task.present(result.arrays)
    for table in presentation.tables:
        print_table(table.columns, table.rows, title=table.title)
    for heatmap in presentation.heatmaps:
        draw_heatmap(
            heatmap.counts, heatmap.names, folder / heatmap.file_name, row=heatmap.row_label, column=heatmap.column_label
        )
    for grid in task.image_grids(result.arrays):
        draw_image_grid(grid, preprocessing, folder / f"{grid.name}.png")
    return dict(presentation.record)


def draw_image_grid(grid: ImageGrid, preprocessing: Preprocessing, file: Path) -> None:
    """Draws images that are normalised as the network sees them."""
    mean, std = (np.asarray(values, dtype=np.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    pixels = np.clip((grid.images * std + mean) * 255, 0, 255).round().astype(np.uint8)
    draw_grid(np.moveaxis(pixels, 2, -1), grid.column_labels, file)
