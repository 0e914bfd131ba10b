"""Small files of vectors, as `swin-lab embed` writes them, without a network."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from swin_lab.metadata import METADATA_KEY

PLAN: dict[str, Any] = {"checkpoint": "c" * 64, "preprocessing": {}, "stage": None, "pool": "mean", "flip": False}


def write_vectors(
    file: Path,
    vectors: np.ndarray,
    labels: Sequence[str | None] | None = None,
    paths: Sequence[str] | None = None,
    plan: dict[str, Any] | None = None,
    rows_per_group: int = 7,
) -> Path:
    """Writes a file; without labels, none is known, and without paths, the images do not exist."""
    count, size = vectors.shape
    described = {**PLAN, "shape": [size], "dtype": str(vectors.dtype), "batch": 16, **(plan or {})}
    columns = {
        "path": pa.array(paths or [f"{file.stem}/{i:03}.png" for i in range(count)], pa.string()),
        "label": pa.array(labels or [None] * count, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), size),
    }
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(described)})
    pq.write_table(table, file, row_group_size=rows_per_group)
    return file


def clusters(count: int, size: int = 6, classes: int = 3, seed: int = 0, spread: float = 0.1) -> tuple[np.ndarray, list[str]]:
    """Returns vectors (count, size) around one direction per class, and the names of the classes."""
    generator = np.random.default_rng(seed)
    numbers = np.arange(count) % classes
    vectors = np.eye(size)[numbers] + spread * generator.standard_normal((count, size))
    return vectors.astype(np.float32), [f"class {number}" for number in numbers]


def write_images(folder: Path, count: int) -> list[str]:
    """Writes images of one colour each and returns their paths."""
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (40, 30), (10 * i, 100, 200 - 10 * i)).save(folder / f"{i:02}.png")
    return [str(folder / f"{i:02}.png") for i in range(count)]
