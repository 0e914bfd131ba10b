"""The parts of a file of vectors while it is made, and the plan that says what belongs into them."""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from swin_lab import __version__
from swin_lab.errors import UserError
from swin_lab.inference.inputs import Inputs
from swin_lab.inference.model import InferenceModel, VectorKind
from swin_lab.inference.whole_files import written_whole
from swin_lab.metadata import METADATA_KEY
from swin_lab.training.checkpoint_io import UNFINISHED
from swin_lab.validation import shown

DTypeName = Literal["float32", "float16"]

FOLDER = ".parts"
"""What the name of the folder of parts ends with, after that of the file."""
PLAN, LOCK = "plan.json", "lock"

ROWS_PER_GROUP, BYTES_PER_GROUP = 2048, 2**26
"""Parts are joined to row groups of at most so many rows or bytes, but one part at least."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Contains everything that the values of a file of vectors depend on; it is in the file's metadata."""

    version: str
    checkpoint: str
    """Hash of hyper-parameters and weights."""
    preprocessing: dict[str, Any]
    stage: int | None
    pool: str
    shape: list[int]
    """Shape of an image's vector: (C,), or (C, H, W) for maps."""
    dtype: DTypeName
    flip: bool
    precision: str
    device: str
    """Type of the device, such as cpu or cuda."""
    batch: int
    images: int
    inputs: str
    """Hash of the names and labels of all images."""

    @classmethod
    def of(cls, model: InferenceModel, inputs: Inputs, kind: VectorKind, shape: tuple[int, ...], dtype: DTypeName) -> "Plan":
        """Returns the plan of a command."""
        return cls(
            version=__version__,
            checkpoint=model.weights_hash(),
            preprocessing=model.preprocessing.as_dict(),
            stage=kind.stage,
            pool=kind.pool,
            shape=list(shape),
            dtype=dtype,
            flip=model.flip,
            precision=model.precision,
            device=model.device.type,
            batch=model.batch,
            images=len(inputs),
            inputs=inputs.fingerprint(),
        )

    @property
    def bytes_per_image(self) -> int:
        """Returns the size of a vector."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def schema(self) -> pa.Schema:
        """Returns the columns of the file: path, label (null if it is unknown) and vector, with the plan as metadata."""
        vector = pa.list_(pa.float16() if self.dtype == "float16" else pa.float32(), prod(self.shape))
        fields = [("path", pa.string()), ("label", pa.string()), ("vector", vector)]
        return pa.schema(fields, {METADATA_KEY: json.dumps(asdict(self))})

    def difference(self, other: Any) -> str:
        """Returns which value of another plan, plain Python, differs from that of this one, for a message."""
        own = asdict(self)
        for key, value in own.items():
            there = other.get(key) if isinstance(other, dict) else None
            if there != value:
                return key if len(f"{value}{there}") > 100 else f"{key} ({shown(there)} there, {shown(value)} here)"
        return "the format"


def vector_table(plan: Plan, inputs: Inputs, indices: list[int], vectors_NC: np.ndarray) -> pa.Table:
    """Returns the rows of some images.

    Raises:
        UserError: a vector contains NaN or infinity, or is too large for float16.
    """
    with np.errstate(over="ignore"):
        values_NC = vectors_NC.astype(plan.dtype)
    finite_N = np.isfinite(values_NC).all(axis=1)
    if not finite_N.all():
        name = inputs.name(indices[int(np.argmin(finite_N))])
        hint = "; --dtype float32 can hold it" if np.isfinite(vectors_NC).all() else ": the weights may be damaged"
        raise UserError(f"the vector of {name} contains values that are NaN or infinite in {plan.dtype}{hint}")
    schema = plan.schema()
    flat = pa.array(values_NC.reshape(-1), schema.field("vector").type.value_type)
    columns = [
        pa.array([inputs.name(index) for index in indices], pa.string()),
        pa.array([inputs.label(index) for index in indices], pa.string()),
        pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


class PartFolder:
    """Contains the parts of a file of vectors, in a folder beside it, until all are there.

    Args:
        out: the file.
        plan: what it will contain.
    """

    def __init__(self, out: Path, plan: Plan) -> None:
        self.out = out
        self.plan = plan
        self.folder = out.with_name(out.name + FOLDER)

    def claim(self, *, overwrite: bool, alone: bool) -> bool:
        """Takes the folder for this plan, or joins the processes and the earlier ones that have the same plan.

        Args:
            overwrite: whether a file that exists, and the parts of another plan, may be replaced.
            alone: whether this is the only process; of several, a slow one may find the file that the others have completed.

        Returns:
            False if the file is complete.

        Raises:
            UserError: the file or the folder belongs to another command, or cannot be written.
        """
        recompute = overwrite and alone
        if self.out.exists() and not overwrite and not self._is_complete():
            raise UserError(
                f"{self.out} exists already and differs in {self.plan.difference(_plan_of(self.out))}; nothing was written\n"
                "Give another name, or --overwrite"
            )
        try:
            self.folder.mkdir(exist_ok=True)
            with FileLock(self.folder / LOCK):
                if not recompute and self._is_complete():
                    self._remove()
                    return False
                self._take(overwrite)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror or error}") from error
        return True

    def has(self, number: int) -> bool:
        """Returns whether a part is complete."""
        return self._file(number).is_file()

    def write(self, number: int, table: pa.Table) -> None:
        """Writes a part."""
        file = self._file(number)
        with written_whole(file, self._unfinished(file)) as unfinished:
            pq.write_table(table, unfinished)

    def rows(self) -> int:
        """Returns the number of rows of the complete file."""
        return int(pq.read_metadata(self.out).num_rows)

    def merge(self, count: int) -> None:
        """Puts all parts together as row groups of the file, and removes them.

        If two processes find all parts complete at the same time, the second one finds the file.
        """
        try:
            with FileLock(self.folder / LOCK):
                if not self._is_complete_of(count):
                    self._write(count)
                self._remove()
        except FileNotFoundError:  # The other process has removed the folder.
            if not self._is_complete():
                raise

    def _write(self, count: int) -> None:
        schema = self.plan.schema()
        compression = {"path": "zstd", "label": "zstd", "vector.list.element": "none"}
        with (
            written_whole(self.out, self._unfinished(self.out)) as unfinished,
            pq.ParquetWriter(unfinished, schema, use_dictionary=["label"], compression=compression) as writer,
        ):
            most = min(ROWS_PER_GROUP, BYTES_PER_GROUP // self.plan.bytes_per_image)
            group: list[pa.Table] = []
            for number in range(count):
                part = pq.read_table(self._file(number))
                if group and sum(map(len, group)) + len(part) > most:
                    writer.write_table(pa.concat_tables(group).combine_chunks(), row_group_size=most)
                    group.clear()
                group += [part] if len(part) else []
            if group:
                writer.write_table(pa.concat_tables(group).combine_chunks())

    def _take(self, overwrite: bool) -> None:
        """Writes the plan into the folder, or compares it with the one that is there."""
        file = self.folder / PLAN
        if not file.exists():
            with written_whole(file) as unfinished:
                unfinished.write_text(json.dumps(asdict(self.plan), indent=1))
            return
        try:
            found = json.loads(file.read_text())
        except ValueError:
            found = None
        if found == asdict(self.plan):
            return
        if not overwrite:
            raise UserError(
                f"{self.folder} contains parts of another command; what differs is {self.plan.difference(found)}\n"
                "Repeat that command to complete it, or give --overwrite to start over"
            )
        for part in self.folder.glob("part-*"):
            part.unlink()
        with written_whole(file) as unfinished:
            unfinished.write_text(json.dumps(asdict(self.plan), indent=1))

    def _unfinished(self, file: Path) -> Path:
        """Returns where a file is written by this process: in the folder, with which it is removed after a kill."""
        return self.folder / f".{file.name}.{os.getpid()}{UNFINISHED}"

    def _file(self, number: int) -> Path:
        return self.folder / f"part-{number:07d}.parquet"

    def _is_complete(self) -> bool:
        return self.out.is_file() and _plan_of(self.out) == asdict(self.plan)

    def _is_complete_of(self, count: int) -> bool:
        """Returns whether another process has written the file and removed parts in the meantime."""
        return not all(map(self.has, range(count))) and self._is_complete()

    def _remove(self) -> None:
        """Removes the folder; the plan goes last, so that a process that is killed here has not left unknown parts."""
        if self.folder.is_dir():
            for file in self.folder.glob("*part-*"):
                file.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)


def _plan_of(file: Path) -> Any:
    """Returns the plan in the metadata of a file, or None if it has none."""
    try:
        return json.loads((pq.read_schema(file).metadata or {})[METADATA_KEY.encode()])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
