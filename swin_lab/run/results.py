"""The record of an evaluation, for any task."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from swin_lab.data import ImageData
from swin_lab.preprocessing import Preprocessing
from swin_lab.record import FINISHED, VERSION
from swin_lab.run.derived import formats_of, monitored_of
from swin_lab.run.identity import checkout, describe_data, hardware, versions
from swin_lab.training import Engine


def columns_of(value: Any) -> Any:
    """Returns a list of rows, mappings with the same keys, as a mapping of columns; any other value as it is."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return {key: [row[key] for row in value] for key in value[0]}
    return value


def evaluation_record(
    checkpoint: Path, folder: Path, engine: Engine, data_module: ImageData, preprocessing: Preprocessing, precision: str
) -> dict[str, Any]:
    """Returns the contents of results.json of an evaluation, nested, except what only the command knows."""
    metrics = {name.partition("/")[2]: value for name, value in engine.result.metrics.items()}
    return {
        "version": VERSION,
        "kind": "evaluation",
        "run": {
            "directory": str(folder),
            "state": FINISHED,
            "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
            "images": engine.result.num_images,
            "skipped_images": len(data_module.skipped),
        },
        "checkpoint": str(checkpoint),
        "derived": monitored_of(engine) | {"task": type(engine.task).__name__, "precision": precision},
        "formats": formats_of(engine.task, metrics),
        "metrics": {"final": metrics},
        "preprocessing": preprocessing.as_dict() | {"description": str(preprocessing)},
        "data": asdict(describe_data(data_module.source)),
        "git": asdict(checkout()),
        "versions": versions(),
        "hardware": asdict(hardware(engine.trainer)),
    }
