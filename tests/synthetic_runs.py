"""Run directories as a training writes them, without training: record, metrics.csv and predictions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swin_lab.record import PREDICTIONS, RESULTS, VERSION

UPDATES_PER_EPOCH = 10
CLASSES = ("bee", "cat", "dog")


def record(name: str, accuracy: float | None, config: Mapping[str, Any], state: str = "finished") -> dict[str, Any]:
    """Returns the record of a run, with some of its keys."""
    metrics = {} if accuracy is None else {"acc1": accuracy, "loss": 1 - accuracy}
    return {
        "version": VERSION,
        "kind": "training",
        "run.name": name,
        "run.id": "0123abcd",
        "run.group": None,
        "run.job": None,
        "run.differs": [],
        "run.state": state,
        "run.reason": None,
        "run.started": "2026-01-31T12:00:00+00:00",
        "run.wall_seconds": 61.0,
        "run.epochs": 3,
        "run.updates": 30,
        "run.images_per_second": 812.3,
        "run.data_wait_share": 0.25,
        "run.peak_host_bytes": 500 * 2**20,
        "run.peak_device_bytes": None,
        "derived.monitor": "acc1",
        "derived.monitor_mode": "max",
        "derived.monitor_weights": "raw",
        "derived.epochs": 3,
        "derived.updates_per_epoch": UPDATES_PER_EPOCH,
        "derived.parameters": 536_954,
        "formats.acc1.label": "top-1",
        "formats.acc1.percent": True,
        "formats.loss.label": "loss",
        "formats.loss.percent": False,
        "versions.torch": "2.11",
        **{f"config.{key}": value for key, value in config.items()},
        **{f"metrics.{weights}.{key}": value for weights in ("best", "last") for key, value in metrics.items()},
    }


def write_run(
    folder: Path,
    name: str = "digits/one",
    accuracy: float | None = 0.9,
    config: Mapping[str, Any] = {},
    *,
    state: str = "finished",
    updates: int = 30,
    changes: Mapping[str, Any] = {},
) -> Path:
    """Writes the directory of a run."""
    folder.mkdir(parents=True)
    (folder / RESULTS).write_text(json.dumps(record(name, accuracy, config, state) | changes))
    rows = ["epoch,step,train/loss,val/acc1"]
    for update in range(updates):
        epoch, ends = update // UPDATES_PER_EPOCH, (update + 1) % UPDATES_PER_EPOCH == 0
        rows.append(f"{epoch},{update},{2 / (update + 1):.6f},")
        rows += [f"{epoch},{update},,{(accuracy or 0) * (update + 1) / updates:.6f}"] if ends else []
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_predictions(
    folder: Path, labels: np.ndarray, classes: np.ndarray, *, fingerprint: str = "abc", names: tuple[str, ...] = CLASSES
) -> None:
    """Writes predictions.parquet: the predicted class of each image with probability 0.8."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(labels)
    others = (classes + 1) % len(names)
    table = pa.table(
        {
            "index": pa.array(np.arange(count), pa.int64()),
            "path": [f"{i}.png" for i in range(count)],
            "label": pa.array(labels, pa.int32()),
            "classes": pa.array(np.stack([classes, others], axis=1).tolist(), pa.list_(pa.int32())),
            "probabilities": pa.array([[0.8, 0.2]] * count, pa.list_(pa.float32())),
            "label_probability": pa.array(np.where(classes == labels, 0.8, 0.2), pa.float32()),
        }
    )
    about = {"version": 1, "class_names": list(names), "weights": "raw", "data_fingerprint": fingerprint}
    pq.write_table(table.replace_schema_metadata({"swin_lab": json.dumps(about)}), folder / PREDICTIONS)
