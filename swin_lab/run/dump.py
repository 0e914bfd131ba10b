"""Reading of the dump of an update whose loss or gradient was NaN or infinite; like every file, it is checked first."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.metadata import refuse_unprintable
from swin_lab.training import Batch
from swin_lab.training.nonfinite_dump import BATCHES_KEY, DUMP_FORMAT, UPDATE_KEY
from swin_lab.validation import NonNegativeInt, PositiveInt, check_fields, check_value
from swin_lab.weights import Contents
from swin_lab.weights.files import read
from swin_lab.weights.values import why_not_plain

Seed = Annotated[int, Ge(0), Lt(2**63)]


@dataclass(frozen=True, kw_only=True)
class UpdateFacts:
    """Contains what a dump says about its update."""

    format: PositiveInt
    update: PositiveInt
    epoch: PositiveInt
    loss: bool
    """Whether the loss was bad; if not, only the norm of the gradient was."""
    precision: str
    processes: PositiveInt
    scale: Annotated[float, Gt(0)]

    def __post_init__(self) -> None:
        check_fields(self, f"{UPDATE_KEY}.")


@dataclass(frozen=True, kw_only=True)
class DumpedBatch:
    """Contains a batch, as the task of a process got it."""

    process: NonNegativeInt
    seed: Seed
    tensors: Batch
    names: tuple[str, ...]
    """Names of the images; () if they are unknown."""


def read_dump(given: str) -> tuple[Contents, UpdateFacts, list[DumpedBatch]]:
    """Reads and checks a dump.

    Raises:
        UserError: there is no such file, it is no dump or damaged.
    """
    path = Path(given).expanduser().absolute()
    try:
        if not path.is_file():
            raise UserError(f"{given[:200]} is not a file; give a dump, the nonfinite_UPDATE.pt of a run directory")
    except OSError as error:
        raise UserError(f"{given[:200]} cannot be read: {error.strerror or error}") from error
    contents = read(path)
    if contents.metadata is None or UPDATE_KEY not in contents.state:
        raise UserError(f"{given} is not a dump of an update; give the nonfinite_UPDATE.pt of a run directory")
    try:
        refuse_unprintable(UPDATE_KEY, contents.state[UPDATE_KEY])
        facts = UpdateFacts(**check_value(UPDATE_KEY, contents.state[UPDATE_KEY], dict[str, Any]))
        if facts.format != DUMP_FORMAT:
            raise UserError(f"its format is {facts.format}; this version of swin_lab reads {DUMP_FORMAT}")
        entries = check_value(BATCHES_KEY, contents.state.get(BATCHES_KEY), list[dict[str, Any]])
        batches = [_checked(entry, f"{BATCHES_KEY}.{i}") for i, entry in enumerate(entries)]
        if not batches:
            raise UserError(f"{BATCHES_KEY} is empty")
    except (UserError, TypeError) as error:
        raise UserError(f"{given} is damaged: {error}") from error
    return contents, facts, batches


def _checked(entry: Mapping[str, Any], where: str) -> DumpedBatch:
    """Returns a batch of a file, after a check of everything that can be checked without its task."""
    tensors = entry.get("tensors")
    if not isinstance(tensors, list) or len(tensors) < 2 or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise UserError(f"{where}.tensors must be a list of tensors")
    for tensor in tensors:
        if why := why_not_plain(tensor):
            raise UserError(f"a tensor of {where} {why}")
        if tensor.ndim == 0 or len(tensor) != len(tensors[0]) or len(tensor) == 0:
            raise UserError(f"the tensors of {where} have different lengths")
    if tensors[0].ndim != 4 or not tensors[0].is_floating_point():
        raise UserError(f"{where} has images of shape {list(tensors[0].shape)}")
    names = check_value(f"{where}.names", entry.get("names"), list[str])
    refuse_unprintable(f"{where}.names", names)
    batch = DumpedBatch(process=entry.get("process"), seed=entry.get("seed"), tensors=tuple(tensors), names=tuple(names))  # type: ignore[arg-type]
    check_value(f"{where}.process", batch.process, NonNegativeInt)
    check_value(f"{where}.seed", batch.seed, Seed)
    return batch
