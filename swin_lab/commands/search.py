"""`swin-lab search` and `duplicates`: near images in the vectors of `swin-lab embed`."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from swin_lab.commands.arguments import Ema, Name, check_new_file
from swin_lab.commands.inference import PARTIAL, Device, Overwrite, Trust, opened_model
from swin_lab.commands.vectors import Train, Vectors
from swin_lab.errors import UserError

if TYPE_CHECKING:
    from swin_lab.inference.duplicates import Pair
    from swin_lab.inference.search import Match

MAX_PRINTED = 30
"""Pairs that are printed at most; a file has all of them."""
POOLED = (
    "note       averaged vectors of different images of one class can be as similar as those of near-duplicates;\n"
    "           vectors of swin-lab embed --stage 0 --pool map tell them apart"
)

Sheet = Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="A .png file: the images next to each other.")]


def search(
    vectors: Vectors,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE...", help="Image files, folders, globs in quotes or archives.", show_default=False),
    ] = None,
    row: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=0, help="An image of EMB.parquet itself, counted from 0; may be repeated."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="What has computed EMB.parquet; needed for IMAGE.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Number of images that are found.")] = 8,
    out: Sheet = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    ema: Ema = False,
    name: Name = None,
    trust: Trust = False,
) -> int:
    """Find the images whose vectors are the most similar to those of given images (cosine).

    Example: [bold]swin-lab search vectors.parquet photo.jpg --checkpoint runs/NAME/TIME -o sheet.png[/bold]
    """
    target = None if out is None else check_new_file(out, (".png",), overwrite=overwrite)
    if bool(images) == bool(row):
        raise UserError("give either images or --row N, whose neighbours are searched")
    if row:
        _refuse({"--checkpoint": checkpoint, "--device": device != "auto", "--ema": ema, "--name": name, "--trust": trust})
    if images and checkpoint is None:
        raise UserError(f"--checkpoint is missing: the vectors of {images[0][:200]} are computed with it; --row N needs none")
    from swin_lab.inference.inputs import open_inputs
    from swin_lab.inference.search import check_checkpoint, embedded, of_rows
    from swin_lab.inference.search import search as find
    from swin_lab.inference.sheets import check_rows, draw_matches
    from swin_lab.inference.vectors import open_vectors
    from swin_lab.report import print_lines

    found = open_vectors(vectors)
    skipped = 0
    if images:
        inputs = open_inputs(images)
        model = opened_model(checkpoint or "", found.space.flip, None, device, "auto", ema, name, trust)
        check_checkpoint(model, found)
        queries = embedded(model, inputs, found)
        skipped = len(inputs) - len(queries.names)
    else:
        queries = of_rows(found, row or [])
    if target is not None:
        check_rows(len(queries.names))
    matches = find(found, queries, top)
    _print_matches(queries.names, matches)
    if target is not None:
        draw_matches(queries, matches, target, f"Nearest images in {found.file.name}")
        print_lines([("written", str(target))])
    return PARTIAL if skipped else 0


def _print_matches(names: Sequence[str], matches: "Sequence[Sequence[Match]]") -> None:
    from swin_lab.report import print_table

    lines = [
        [name if rank == 0 else "", match.path, match.label or "", f"{match.similarity:.4f}"]
        for name, some in zip(names, matches, strict=True)
        for rank, match in enumerate(some)
    ]
    print_table(["query", "image", "label", "similarity"], lines, left=("image", "label"), framed=False)


def _refuse(options: Mapping[str, object]) -> None:
    """Raises UserError if an option is given that says how the vectors of images are computed."""
    given = [name for name, value in options.items() if value]
    if given:
        raise UserError(f"{given[0]} applies to images, whose vectors are computed; --row N takes a vector of the file")


def duplicates(
    train: Train,
    val: Annotated[
        str | None,
        typer.Argument(metavar="VAL.parquet", help="If not given, pairs within TRAIN.parquet are listed."),
    ] = None,
    threshold: Annotated[float, typer.Option(metavar="S", min=0.5, max=1, help="Smallest similarity (cosine).")] = 0.95,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="A .csv file with all pairs.")] = None,
    sheet: Annotated[
        str | None, typer.Option(metavar="FILE", help="A .png file: the most similar pairs next to each other.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """List near-duplicates: pairs of a training and a validation image that have nearly the same vector.

    Vectors of an early stage that keep the positions serve best: swin-lab embed --stage 0 --pool map.

    Example: [bold]swin-lab duplicates train.parquet val.parquet -o pairs.csv --sheet pairs.png[/bold]
    """
    table = None if out is None else check_new_file(out, (".csv",), overwrite=overwrite)
    drawn = None if sheet is None else check_new_file(sheet, (".png",), overwrite=overwrite)
    from swin_lab.inference.duplicates import find_pairs, write_pairs
    from swin_lab.inference.sheets import draw_pairs
    from swin_lab.inference.vectors import check_comparable, open_vectors
    from swin_lab.report import print_lines

    first = open_vectors(train)
    second = None if val is None else open_vectors(val)
    if second is not None:
        check_comparable(first, second)
    pairs = find_pairs(first, second, threshold)
    if len(pairs) > MAX_PRINTED and first.space.pool == "mean":
        print(POOLED, file=sys.stderr)
    _print_pairs(pairs, threshold)
    if table is not None:
        write_pairs(pairs, table)
        print_lines([("written", f"{table}: {len(pairs):,} pairs")])
    if drawn is not None and pairs:
        columns = ("training", "validation") if second is not None else ("one", "the other")
        count = draw_pairs(pairs, drawn, f"{len(pairs):,} pairs of a similarity of at least {threshold:g}", columns)
        print_lines([("written", f"{drawn}: the {count} most similar pairs" if count < len(pairs) else str(drawn))])


def _print_pairs(pairs: "list[Pair]", threshold: float) -> None:
    from swin_lab.report import print_lines, print_table

    if not pairs:
        print_lines([("pairs", f"none have a similarity of at least {threshold:g}")])
        return
    lines = [
        [f"{pair.similarity:.4f}", pair.first.path, pair.first.label or "", pair.second.path, pair.second.label or ""]
        for pair in pairs[:MAX_PRINTED]
    ]
    columns = ["similarity", "image", "label", "other image", "other label"]
    print_table(columns, lines, left=columns[1:], framed=False)
    more = f", of which the first {MAX_PRINTED} are shown; -o FILE writes all" if len(pairs) > MAX_PRINTED else ""
    print_lines([("pairs", f"{len(pairs):,} with a similarity of at least {threshold:g}{more}")])
