"""Writes predictions.parquet: what the network predicts for each validation image."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swin_lab.data import ImageSource
from swin_lab.errors import printable
from swin_lab.record import PREDICTIONS, Predictions
from swin_lab.training import Columns
from swin_lab.training.checkpoint_io import UNFINISHED

FORMAT = 1
METADATA = "swin_lab"
"""Key of the schema's metadata."""


def write_predictions(
    columns: Columns, source: ImageSource, fingerprint: str, weights: Literal["raw", "ema"], folder: Path
) -> Predictions:
    """Writes the file, beside its place first.

    Args:
        columns: the predictions, in the order of the set. If empty, the task has none, and no file is written.
        source: the data.
        fingerprint: of the validation set.
        weights: which weights have predicted.
        folder: an existing folder.

    Returns:
        What the record names.
    """
    if not columns:
        return Predictions()
    names = pa.array([printable(source.val.name(int(index))) for index in columns["index"]], pa.string())
    arrays = {"index": pa.array(columns["index"], pa.int64()), "path": names}
    arrays |= {name: _array(values) for name, values in columns.items() if name != "index"}
    metadata = {"version": FORMAT, "class_names": list(source.class_names), "weights": weights, "data_fingerprint": fingerprint}
    table = pa.table(arrays).replace_schema_metadata({METADATA: json.dumps(metadata)})
    file = folder / PREDICTIONS
    unfinished = file.with_name(file.name + UNFINISHED)
    pq.write_table(table, unfinished)
    unfinished.replace(file)
    return Predictions(file=PREDICTIONS, weights=weights)


def _array(values: np.ndarray) -> pa.Array:
    """Returns a column of scalars, or of lists for values (N, K)."""
    flat = pa.array(values.reshape(-1))
    if values.ndim == 1:
        return flat
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), flat)
