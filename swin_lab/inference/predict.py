"""Predicts the classes of all images of some inputs and writes them as a table."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from swin_lab.errors import UserError
from swin_lab.inference.inputs import Inputs
from swin_lab.inference.model import TOP, InferenceModel
from swin_lab.inference.progress import Summary, name_loaded, named_unreadable, shown_progress
from swin_lab.inference.rows import FORMATS, Row, Write, check_format, printed
from swin_lab.inference.stream import Outputs, chunks_of, compute
from swin_lab.inference.whole_files import written_whole


def check_out(file: Path, *, overwrite: bool) -> None:
    """Raises UserError if a file exists, cannot be written, or has the ending of no format."""
    check_format(file)
    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"{file} is a folder" if file.is_dir() else f"{file.parent} is not a folder; create it first")
    if file.exists() and not overwrite:
        raise UserError(f"{file} exists already; nothing was written. Give another name, or --overwrite")


def predict(model: InferenceModel, inputs: Inputs, out: Path | None, *, top: int | None, workers: int) -> Summary:
    """Writes or prints the predicted classes of every image, in the order of the inputs.

    Args:
        model: the network.
        inputs: the images.
        out: a file for `check_out`. If None, a table is printed.
        top: number of classes per image, see `InferenceModel.chosen`.
        workers: processes that decode images.

    Raises:
        UserError: the network does not classify, or the file cannot be written.
    """
    readable = model.readable_names()
    names = list(readable.values())
    columns = None if model.thresholds is not None else min(TOP if top is None else top, len(names))
    name_loaded(model.lines())
    start = perf_counter()
    results = compute(model, model.probabilities, inputs, chunks_of(len(inputs), model.batch), workers)
    skipped = 0
    with _opened(out, columns, bool((inputs.labels >= 0).any())) as write, shown_progress(len(inputs)) as advance:
        for outputs in results:
            skipped += named_unreadable(outputs.unreadable)
            rows = _rows(model, outputs, inputs, names, top)
            write([row | {"label": readable.get(row["label"], row["label"])} for row in rows])
            advance(len(outputs.chunk))
    return Summary(len(inputs) - skipped, skipped, perf_counter() - start, len(inputs))


@contextmanager
def _opened(out: Path | None, top: int | None, with_labels: bool) -> Iterator[Write]:
    if out is None:
        with printed(top, with_labels) as write:
            yield write
        return
    with written_whole(out) as unfinished, FORMATS[out.suffix.lower()](unfinished, top) as write:
        yield write


def _rows(model: InferenceModel, outputs: Outputs, inputs: Inputs, names: Sequence[str], top: int | None) -> Iterator[Row]:
    for index, probabilities in zip(outputs.indices, outputs.values, strict=True):
        row: Row = {"path": inputs.name(index), "label": inputs.label(index)}
        chosen = model.chosen(probabilities, top)
        found, values = [names[c] for c in chosen], [float(probabilities[c]) for c in chosen]
        if model.thresholds is not None:
            yield row | {"classes": found, "probabilities": values}
            continue
        for rank, (name, probability) in enumerate(zip(found, values, strict=True), start=1):
            row |= {f"class_{rank}": name, f"probability_{rank}": probability}
        yield row
