"""`swin-lab knn`, `probe`, `linear-probe` and `map`: what vectors of images are worth, and how they lie to each other."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from swin_lab.commands.arguments import Ema, Name, check_new_file
from swin_lab.commands.inference import PARTIAL, Batch, Device, Overwrite, Precision, Weights, Workers, number_of_workers
from swin_lab.errors import UserError

if TYPE_CHECKING:
    from swin_lab.inference.accuracy import Accuracy, LabelledSets, ProbeResult
    from swin_lab.inference.vectors import VectorFile

MAX_NEIGHBOURS = 1000

Vectors = Annotated[str, typer.Argument(metavar="EMB.parquet", help="A file of swin-lab embed.")]
Train = Annotated[str, typer.Argument(metavar="TRAIN.parquet", help="Vectors of training images, written by swin-lab embed.")]
Val = Annotated[str, typer.Argument(metavar="VAL.parquet", help="Vectors of validation images.")]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of the random numbers.")]


def knn(
    train: Train,
    val: Annotated[
        str | None,
        typer.Argument(metavar="VAL.parquet", help="If not given, each training image is classified by the others."),
    ] = None,
    k: Annotated[str, typer.Option("-k", metavar="K,...", help="Numbers of neighbours.")] = "1,5,20",
    metric: Annotated[Literal["cosine", "euclidean"], typer.Option(help="Which neighbours are near.")] = "cosine",
    index: Annotated[
        Literal["exact", "faiss"], typer.Option(help="exact: scikit-learn; faiss: the same neighbours, faster.")
    ] = "exact",
    as_json: AsJson = False,
) -> None:
    """Classify images by their nearest neighbours, and print top-1.

    Example: [bold]swin-lab knn train.parquet val.parquet[/bold]
    """
    ks = _numbers_of_neighbours(k)
    from swin_lab.inference.accuracy import LabelledSets, knn_accuracy
    from swin_lab.inference.neighbours import check_index
    from swin_lab.inference.vectors import open_vectors

    check_index(index)
    first = open_vectors(train)
    second = None if val is None else open_vectors(val)
    available = first.rows - (second is None)
    if max(ks) > available:
        others = "" if second else " besides the one that is classified"
        raise UserError(f"-k {max(ks)}: {first.file} has {available} training images{others}")
    sets = LabelledSets.of(first, second or first)
    found = knn_accuracy(first, second, sets, ks, metric, index)
    described: dict[str, Any] = {"metric": metric, "leave_one_out": second is None}
    results = {f"{number}-NN": accuracy for number, accuracy in found.items()}
    _print_accuracies(first, second, sets, described, results, as_json=as_json)


def probe(train: Train, val: Val, seed: Seed = 0, as_json: AsJson = False) -> None:
    """Train a linear classifier on vectors (a linear probe), and print top-1 and top-5 on other ones.

    The strength of its regularisation is chosen on a part of the training images.

    Example: [bold]swin-lab probe train.parquet val.parquet[/bold]
    """
    from swin_lab.inference.accuracy import LabelledSets
    from swin_lab.inference.accuracy import probe as compute
    from swin_lab.inference.vectors import open_vectors

    first, second = open_vectors(train), open_vectors(val)
    sets = LabelledSets.of(first, second)
    found = compute(first.vectors(), second.vectors(), sets, seed)
    _print_probe(first, second, sets, found, seed, as_json=as_json)


def linear_probe(
    checkpoint: Weights,
    train: Annotated[str, typer.Argument(metavar="TRAIN", help="Training images: a folder of class folders, or an archive.")],
    val: Annotated[str, typer.Argument(metavar="VAL", help="Validation images.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="A new .safetensors or .pth file.")],
    kept: Annotated[
        str | None,
        typer.Option(
            "--vectors", metavar="FOLDER", help="Where the vectors are kept for further runs; if not given, beside FILE."
        ),
    ] = None,
    seed: Seed = 0,
    batch: Batch = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = None,
    ema: Ema = False,
    name: Name = None,
) -> int:
    """Train a linear head on the vectors of a network (linear probing), and write the network with it.

    The vectors are computed once: the same network and images find them again. The exit code is 1 if some images could not be
    read.

    Example: [bold]swin-lab linear-probe swin_tiny.pth data/train data/val -o probed.safetensors[/bold]
    """
    from pathlib import Path

    from swin_lab.weights.save import check_target

    target = Path(out).expanduser().absolute()
    check_target(target, "swin_lab")
    folder = target.parent if kept is None else Path(kept).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"--vectors {kept}: {folder} is not a folder; create it first")
    from swin_lab.inference.inputs import open_inputs
    from swin_lab.inference.linear_probe import check_labels, fit_head, kept_vectors, open_backbone, with_head
    from swin_lab.inference.model import Settings
    from swin_lab.report import print_lines
    from swin_lab.weights import save_weights

    count = number_of_workers(workers)
    sets_of_images = {"train": open_inputs([train]), "val": open_inputs([val])}
    check_labels(sets_of_images["train"], sets_of_images["val"])
    model = open_backbone(checkpoint, Settings(device=device, precision=precision, batch=batch, ema=ema, name=name))
    found = {key: kept_vectors(model, inputs, folder, key, count) for key, inputs in sets_of_images.items()}
    sets, result = fit_head(found["train"].file, found["val"].file, seed)
    written = save_weights(with_head(model.network, result.head, tuple(map(str, sets.classes))), target)
    print_lines([("vectors", f"{each.file.file}, {each.computed:,} images computed") for each in found.values()])
    _print_probe(found["train"].file, found["val"].file, sets, result, seed, as_json=False)
    print_lines([("written", f"{written}, layout swin_lab")])
    return PARTIAL if any(each.unreadable for each in found.values()) else 0


def map_images(
    vectors: Vectors,
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="A .html file.")],
    method: Annotated[Literal["tsne", "umap"], typer.Option(help="t-SNE of scikit-learn, or UMAP of umap-learn.")] = "tsne",
    points: Annotated[
        int, typer.Option(metavar="N", min=5, max=100_000, help="Images on the map at most; of more, a random part.")
    ] = 10_000,
    thumbnails: Annotated[
        int, typer.Option(metavar="N", min=0, max=100_000, help="Images that are in the page at most, 48 pixels large.")
    ] = 5000,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw images as points of a plane, near ones near each other: a page that shows an image under the mouse.

    Example: [bold]swin-lab map vectors.parquet -o map.html[/bold]
    """
    target = check_new_file(out, (".html",), overwrite=overwrite)
    from swin_lab.inference.map import draw_map
    from swin_lab.inference.projection import check_method
    from swin_lab.inference.vectors import open_vectors
    from swin_lab.report import print_lines
    from swin_lab.report.html import check_plotly

    check_method(method)
    check_plotly()
    drawn = draw_map(open_vectors(vectors), target, method, max_points=points, max_thumbnails=thumbnails, seed=seed)
    print_lines([("written", f"{target}: {drawn}")])


def _numbers_of_neighbours(given: str) -> list[int]:
    words = given.split(",")
    if not all(word.isascii() and word.isdecimal() and 1 <= int(word[:9]) <= MAX_NEIGHBOURS for word in words):
        raise UserError(
            f"-k {given[:100]} must be integers from 1 to {MAX_NEIGHBOURS} with commas between them, such as 1,5,20"
        )
    return sorted({int(word) for word in words})


def _print_probe(
    train: "VectorFile", val: "VectorFile", sets: "LabelledSets", found: "ProbeResult", seed: int, *, as_json: bool
) -> None:
    if not found.converged:
        print("note       the classifier has not converged; its accuracy may be too low", file=sys.stderr)
    results = {"top-1": found.top1} | ({} if found.top5 is None else {"top-5": found.top5})
    described = {"C": found.strength, "converged": found.converged, "seed": seed}
    _print_accuracies(train, val, sets, described, results, as_json=as_json)


def _print_accuracies(
    train: "VectorFile",
    val: "VectorFile | None",
    sets: "LabelledSets",
    described: Mapping[str, Any],
    results: "Mapping[str, Accuracy]",
    *,
    as_json: bool,
) -> None:
    """Prints a table of accuracies with their intervals, or JSON."""
    import json

    from swin_lab.report import print_lines, print_table

    images = (val or train).rows
    if sets.unseen:
        print(f"note       images of classes that {train.file} lacks count as wrong: {sets.unseen:,}", file=sys.stderr)
    if as_json:
        values = {name: accuracy.as_dict() for name, accuracy in results.items()}
        counts = {"train_images": train.rows, "images": images, "classes": len(sets.classes)}
        print(json.dumps({**counts, **described, "results": values}, indent=2))
        return
    print_lines([("training", f"{train.file}: {train.rows:,} images, {len(sets.classes):,} classes")])
    print_lines([("images", f"each of them by the others ({images:,})" if val is None else f"{val.file}: {images:,} images")])
    print_lines([(name, str(value)) for name, value in described.items() if name in ("metric", "C")])
    rows = []
    for name, accuracy in results.items():
        low, high = accuracy.interval
        rows.append([name, f"{accuracy.share:.2%}", f"{low:.2%} to {high:.2%}", f"{accuracy.correct:,} of {images:,}"])
    print_table(["", "accuracy", "95 % interval", "correct"], rows, framed=False)
