"""`swin-lab predict` and `embed`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from swin_lab.commands.arguments import Ema, Name
from swin_lab.errors import UserError

if TYPE_CHECKING:
    from swin_lab.inference.model import InferenceModel

T = TypeVar("T")

PARTIAL = 1
"""Exit code if some images could not be read; the others are in the result."""

MAX_BATCH = 2**16

PrecisionName = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
"""Equals swin_lab.inference.model.PrecisionName, as a test checks; importing that module would import torch."""

Weights = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT", help="A run directory, a weight file of any layout, a folder, or OWNER/NAME on the hub."
    ),
]
Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="Image files, folders, globs in quotes, .zip, .tar or .parquet files, or hf://datasets/OWNER/NAME.",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps; auto: a GPU, if there is one.")]
Precision = Annotated[PrecisionName, typer.Option(help="auto: bf16-mixed on a GPU that has it, else 32-true.")]
Flip = Annotated[bool, typer.Option("--flip", metavar="", help="Average over each image and its mirror image.")]
Batch = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=MAX_BATCH, help="Images of a forward pass; if not given, as in training; fewer on a CPU."
    ),
]
Workers = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Processes that decode images; if not given, one per core.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace the output if it exists.")]
Trust = Annotated[
    bool, typer.Option("--trust", metavar="", help="Let the checkpoint name classes from outside swin_lab, which are imported.")
]


def predict(
    checkpoint: Weights,
    paths: Paths,
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", metavar="FILE", help="A .csv, .json or .parquet file. If not given, a table is printed."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=1,
            max=10**6,
            help="Number of classes per image; if not given, 5. Of several labels, those above thresholds, at most so many.",
        ),
    ] = None,
    flip: Flip = False,
    batch: Batch = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = None,
    overwrite: Overwrite = False,
    ema: Ema = False,
    name: Name = None,
    trust: Trust = False,
) -> int:
    """Predict the classes of images, with the preprocessing and the class names of the checkpoint.

    If an image can have several labels, the result has those above the thresholds that the checkpoint contains.

    The exit code is 1 if some images could not be read. They are named on stderr; the result has the others, in order.

    Example: [bold]swin-lab predict runs/NAME/TIME photos/ -o classes.csv[/bold]
    """
    from swin_lab.inference.inputs import open_inputs
    from swin_lab.inference.predict import check_out
    from swin_lab.inference.predict import predict as compute
    from swin_lab.report import print_lines

    target = None if out is None else _absolute(out)
    if target is not None:
        check_out(target, overwrite=overwrite)
    if _process() != (0, 1):
        raise UserError("predict runs in one process, without torchrun; swin-lab embed takes several")
    count = number_of_workers(workers, 1)
    model = opened_model(checkpoint, flip, batch, device, precision, ema, name, trust)
    done = compute(model, open_inputs(paths), target, top=top, workers=count)
    if target is None:
        print(f"{done}", file=sys.stderr)
    else:
        print_lines([("written", f"{target}: {done}")])
    return PARTIAL if done.unreadable else 0


def embed(
    checkpoint: Weights,
    paths: Paths,
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="A .parquet file.")],
    stage: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=3,
            help="The stage whose map is taken, before the next merging; if not given, the last one, after the final norm.",
        ),
    ] = None,
    pool: Annotated[Literal["mean", "map"], typer.Option(help="mean: average over positions; map: keep all.")] = "mean",
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Type of the values in the file.")] = "float32",
    flip: Flip = False,
    batch: Batch = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = None,
    overwrite: Overwrite = False,
    ema: Ema = False,
    name: Name = None,
    trust: Trust = False,
) -> int:
    """Write a vector of every image to a parquet file. The same command again continues after a kill.

    The exit code is 1 if some images could not be read. Several processes, started by torchrun, share the work, and end with 0,
    as torchrun takes 1 for a failure.

    Example: [bold]swin-lab embed runs/NAME/TIME photos/ -o vectors.parquet[/bold]
    """
    from swin_lab.inference.embed import Shard, check_out
    from swin_lab.inference.embed import embed as compute
    from swin_lab.inference.inputs import open_inputs
    from swin_lab.inference.model import VectorKind
    from swin_lab.report import print_lines

    target = _absolute(out)
    check_out(target)
    shard = Shard(*_process())
    count = number_of_workers(workers, shard.world_size)
    model = opened_model(checkpoint, flip, batch, device, precision, ema, name, trust)
    kind = VectorKind(stage, pool)
    inputs = open_inputs(paths)
    done = compute(model, inputs, target, kind, dtype=dtype, workers=count, shard=shard, overwrite=overwrite)
    if done is None:  # Another process is the last one.
        return 0
    print_lines([("written" if done.computed else "complete", f"{target}: {done}")])
    return PARTIAL if done.unreadable and shard.world_size == 1 else 0


def opened_model(
    checkpoint: str,
    flip: bool,
    batch: int | None,
    device: str,
    precision: PrecisionName,
    ema: bool,
    name: str | None,
    trust: bool,
) -> "InferenceModel":
    """Loads the checkpoint."""
    import warnings

    from PIL import Image

    from swin_lab.inference.model import Settings, open_model

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Images above twice the limit are refused, as in training.
    settings = Settings(device=device, precision=precision, flip=flip, batch=batch, ema=ema, name=name, trust=trust)
    return _in_words_of_options(lambda: open_model(checkpoint, settings))


def _in_words_of_options(function: Callable[[], T]) -> T:
    """Calls a function, and names in its messages the options of the command instead of keys of the configuration."""
    try:
        return function()
    except UserError as error:
        text = str(error)
        for key, option in (("trust=true", "--trust"), ("batch=1", "--batch 1"), ("transfer.ema=false", "no --ema")):
            text = text.replace(key, option)
        raise UserError(text) from error


def number_of_workers(given: int | None, processes: int = 1) -> int:
    """Returns the number of processes that decode images, of which each of several processes of a command has some."""
    from swin_lab.data.datamodule import check_processes, default_workers

    check_processes("--workers", given)
    return default_workers(processes) if given is None else given


def _process() -> tuple[int, int]:
    """Returns the number of this process and how many there are, from the environment that torchrun sets."""
    import os

    from swin_lab.run.arguments import check_environment

    check_environment()
    rank, world_size = int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)
    if not 0 <= rank < world_size:
        raise UserError(f"the environment variables RANK={rank} and WORLD_SIZE={world_size} contradict each other; unset them")
    return rank, world_size


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
