"""`swin-lab explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swin_lab.commands.arguments import Ema, Name, complete_model
from swin_lab.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from swin_lab.models import SwinTransformer
    from swin_lab.models.steps import Step
    from swin_lab.preprocessing import Preprocessing
    from swin_lab.run.swin_network import OpenedSwin

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
MIN_WIDTH = 110
"""Columns of the terminal that the tables need."""

PRODUCTS_NOTE = """
Tokens and products: tokens of a window, and dot products of queries and keys in it, for one head of one
block. In all: products in all windows. Global: products if every token of the map attended to every token.
"""
WEIGHTS_NOTE = """
There is no attention: in each window, the tokens of the output are weighted sums of those of the input (a grouped
1-D convolution). Weights: tokens x tokens for one head of one block, the same in all windows and for all images.
Padded: the map with the zeros that shift its windows and fill the last ones.
"""


def explain(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A variant, a weight file of any layout, or a run directory.", autocompletion=complete_model
        ),
    ],
    img_size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="H W", help="Height and width of the image in pixels.", show_default=False),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An image, for the figure and for the logits of a checkpoint.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FIGURE", help="A new .png, .svg or .pdf: the architecture.", show_default=False),
    ] = None,
    name: Name = None,
    ema: Ema = False,
) -> None:
    """Print each step of the pass of an image through a network: shapes, windows, dot products, parameters, cost and memory.

    Example: [bold]swin-lab explain swin_tiny_patch4_window7_224 --img-size 240 320 -o swin_tiny.png[/bold]
    """
    target = None if out is None else _new_figure(out)
    if _is_variant(source):
        if ema or name is not None:
            raise UserError(f"{source} is the name of a model; --name and --ema are for weight files")
        if image is not None and target is None:
            raise UserError(
                f"{source} is the name of a model, without weights to classify {image}; give a checkpoint, or -o FIGURE"
            )
    opened, network = _open(source, name, ema)
    from swin_lab.models.steps import steps_of
    from swin_lab.report import draw_architecture, print_lines
    from swin_lab.run.architecture import architecture_of

    steps = steps_of(network, img_size)
    size = network.img_size if img_size is None else img_size
    pixels = logits = None
    if image is not None:
        pixels, logits = _read(image, network, opened, size)
    height, width = size
    print(f"{source}, an image of {height}x{width}\n")
    _print_steps(steps)
    _print_windows(steps, network.config.token_mixer == "mlp")
    if opened is not None and logits is not None and len(logits):
        best = int(logits.argmax())
        print_lines([("predicted", f"{opened.name_of(best)}, {logits.softmax(dim=0)[best]:.1%}")])
    if target is not None:
        draw_architecture(architecture_of(network, Path(source).name, img_size, pixels), target)
        print_lines([("written", str(out))])


def _new_figure(out: Path) -> Path:
    target = out.expanduser().absolute()
    if target.suffix.lower() not in FIGURE_SUFFIXES or target.exists() or not target.parent.is_dir():
        raise UserError(f"{target}: give a new .png, .svg or .pdf file in a folder that exists")
    return target


def _is_variant(source: str) -> bool:
    """Returns whether this is the name of a variant, and not a file; raises UserError for a name that is neither."""
    from swin_lab.models import list_models, model_config
    from swin_lab.weights.files import SUFFIXES

    if Path(source).exists():
        return False
    if source not in list_models() and "/" not in source and not source.endswith(SUFFIXES):
        model_config(source)  # It raises UserError with the nearest name.
    return source in list_models()


def _open(source: str, name: str | None, ema: bool) -> "tuple[OpenedSwin | None, SwinTransformer]":
    """Returns the network, and what belongs to its weights if it has any; a variant takes no memory for weights."""
    import torch

    from swin_lab.models import SwinTransformer, model_config
    from swin_lab.run.swin_network import open_swin

    if _is_variant(source):
        with torch.device("meta"):
            return None, SwinTransformer(model_config(source).with_attention("reference"))
    opened = open_swin(source, name=name, ema=ema)
    return opened, opened.network


def _read(
    file: Path, network: "SwinTransformer", opened: "OpenedSwin | None", size: tuple[int, int]
) -> "tuple[np.ndarray, Tensor | None]":
    """Returns an image as the network sees it, with values from 0 to 1, and the logits of a checkpoint, (K,)."""
    from dataclasses import replace

    import torch

    from swin_lab.data.transforms import image_transform, visible
    from swin_lab.run.restore import default_preprocessing

    preprocessing: Preprocessing = default_preprocessing(file, network) if opened is None else opened.preprocessing
    preprocessing = replace(preprocessing, img_size=size)
    image_CHW = image_transform(preprocessing)(file)
    logits_K = None
    if opened is not None:
        with torch.inference_mode():
            logits_K = network(image_CHW[None])[0]
    return visible(image_CHW, preprocessing), logits_K


def _print_steps(steps: "Sequence[Step]") -> None:
    rows: list[list[str]] = []
    stage = None
    for step in steps:
        if step.stage != stage and step.stage is not None:
            rows.append([f"stage {step.stage + 1}", *[""] * 5])
        stage = step.stage
        name = ("" if stage is None else "  ") + step.name + (f" x{step.count}" if step.count > 1 else "")
        cost = (f"{step.parameters:,}", _scaled(step.macs), _binary(step.activation_bytes))
        rows.append([name, _by(*step.before), _by(*step.after), *cost])
    parameters, macs, size = (sum(getattr(step, key) for step in steps) for key in ("parameters", "macs", "activation_bytes"))
    rows.append(["sum", "", "", f"{parameters:,}", _scaled(macs), _binary(size)])
    _print_wide(["step", "before", "after", "parameters", "MACs", "activations"], rows)
    several = "x9: nine blocks of the stage. " if any(step.count > 1 for step in steps) else ""
    print(f"\n{several}MACs: multiply-accumulates by the papers' formula. Activations: all results in float32.\n")


def _print_windows(steps: "Sequence[Step]", is_mlp: bool) -> None:
    """Prints the windows of attention and its dot products, or those of Swin-MLP and its weights."""
    rows = []
    for step in steps:
        if (windows := step.windows) is not None and step.stage is not None:
            padded = "" if windows.padded_size == windows.map_size else _by(*windows.padded_size)
            shift = "" if windows.shift == (0, 0) else _by(*windows.shift)
            row = [f"{step.stage + 1}  {step.name}", _by(*windows.map_size), padded, _by(*windows.window), shift]
            of_attention = (windows.products_per_window, windows.products, windows.global_products)
            counts = (windows.heads, windows.products_per_window) if is_mlp else of_attention
            rows.append([*row, *(f"{number:,}" for number in (windows.count, windows.tokens, *counts))])
    counted = ["heads", "weights"] if is_mlp else ["products", "in all", "global"]
    columns = ["window MLP" if is_mlp else "attention", "map", "padded", "window", "shift", "windows", "tokens", *counted]
    used = [i for i, name in enumerate(columns) if name != "padded" or any(row[i] for row in rows)]
    _print_wide([columns[i] for i in used], [[row[i] for i in used] for row in rows])
    print(WEIGHTS_NOTE if is_mlp else PRODUCTS_NOTE)


def _print_wide(columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table whose cells are not folded on a terminal that is too narrow."""
    import rich
    from rich.console import Console

    from swin_lab.report import print_table

    print_table(columns, rows, framed=False, console=Console(width=max(MIN_WIDTH, rich.get_console().width)))


def _by(*numbers: int) -> str:
    return "x".join(map(str, numbers))


def _scaled(number: float) -> str:
    """Returns a count with four significant digits, such as 1.184 M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return f"{number:,}"


def _binary(size: int) -> str:
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} B"
