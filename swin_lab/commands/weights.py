"""`swin-lab inspect`, `convert` and `export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from swin_lab.commands.arguments import Ema, Name, Source
from swin_lab.errors import UserError

if TYPE_CHECKING:
    from swin_lab.models import SwinTransformer

LayoutName = Literal["swin_lab", "official", "timm", "torchvision", "huggingface", "mmpretrain"]
"""Equals swin_lab.weights.layouts.LAYOUT_NAMES, as a test checks; importing that module would import torch."""


def inspect(source: Source, name: Name = None, ema: Ema = False) -> None:
    """Print what a weight file contains, whichever library wrote it.

    Example: [bold]swin-lab inspect swin_tiny_patch4_window7_224.pth[/bold]
    """
    from swin_lab.report import print_lines
    from swin_lab.weights import open_checkpoint

    print_lines(open_checkpoint(source, name=name, ema=ema).lines())


def convert(
    source: Source,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A new .safetensors or .pth file; a new folder for huggingface.")],
    layout: Annotated[LayoutName, typer.Option(help="The layout to write.")] = "swin_lab",
    verify: Annotated[
        bool, typer.Option("--verify", metavar="", help="Compare logits with those of the library itself.")
    ] = False,
    name: Name = None,
    ema: Ema = False,
) -> None:
    """Write weights in the layout of another library.

    Example: [bold]swin-lab convert runs/NAME/TIME out.safetensors --layout timm --verify[/bold]
    """
    from swin_lab.report import print_lines
    from swin_lab.weights import load, save_weights
    from swin_lab.weights.save import check_target, keeps_metadata

    check_target(_absolute(out), layout)
    model, report = load(source, name=name, ema=ema)
    print_lines(report.lines())
    written = save_weights(model, out, layout)
    print_lines([("written", f"{written}, layout {layout}")])
    if not keeps_metadata(layout, written.suffix):
        lost = {"class names": model.class_names, "preprocessing": model.preprocessing, "thresholds": model.thresholds}
        names = [what for what, value in lost.items() if value is not None]
        if names:
            print_lines([("note", f"not in this file: {', '.join(names)}; a .safetensors file has them")])
    if verify:
        print_lines(_verify(model, written, layout, name or next(iter(report.checkpoint.variants), None)))


def export(
    source: Source,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A new .onnx or .pt2 file.")],
    img_size: Annotated[
        str | None, typer.Option(metavar="PIXELS", help="Image size: one number, or height and width such as 192x256.")
    ] = None,
    name: Name = None,
    ema: Ema = False,
) -> None:
    """Write a program for other runtimes: ONNX or torch.export. Its logits are compared with the model's.

    Example: [bold]swin-lab export runs/NAME/TIME model.onnx --img-size 192x256[/bold]
    """
    from swin_lab.report import print_lines
    from swin_lab.weights import export_model, load
    from swin_lab.weights.export import check_export_target

    check_export_target(_absolute(out))
    model, report = load(source, name=name, ema=ema, img_size=_parse_size(img_size))
    print_lines(report.lines())
    differences = export_model(model, out)
    print_lines([("verified", f"largest logit difference at batch {batch}: {d:.2g}") for batch, d in differences.items()])
    print_lines([("written", str(_absolute(out)))])


def _verify(model: "SwinTransformer", written: Path, layout: str, name: str | None) -> list[tuple[str, str]]:
    """Reads a written file back and compares its tensors, and logits with those of the library, if there is one."""
    from swin_lab.weights import load
    from swin_lab.weights.reference_models import LIBRARIES, largest_difference

    again, _ = load(written, name=name)
    same = all(a.equal(b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    lines = [("verified", "read back bit for bit" if same else "DIFFERENT VALUES WERE READ BACK")]
    if layout in LIBRARIES:
        difference, library = largest_difference(model, layout)
        return [*lines, ("verified", f"largest logit difference from {library}: {difference:.2g}")]
    return [*lines, ("note", f"no installable library reads layout {layout}; nothing to compare logits with")]


def _parse_size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    try:
        numbers = [int(number) for number in text.split("x")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise UserError(f"img_size={text} must be one number of pixels, or height and width such as 192x256")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
