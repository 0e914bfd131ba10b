"""`swin-lab look`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swin_lab.commands.arguments import Ema, Name, Source
from swin_lab.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from swin_lab.models.inspection import BlockAttention, Inspection
    from swin_lab.report import HeatMap
    from swin_lab.run.swin_network import OpenedSwin

BIAS_FILE = "position_bias.png"


@dataclass(frozen=True)
class Choice:
    """Contains what of the attention is drawn, as given on the command line; everything is counted from 1."""

    stage: int | None
    """If None, the last block of every stage."""
    block: int | None
    """If None, all blocks of the stage."""
    head: int | None
    """If None, the mean over heads, and every head as well if the block is given."""
    pixel: tuple[int, int] | None
    """Row and column of a pixel whose token is the only query. If None, all tokens are queries."""


def look(
    source: Source,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="A new or empty folder.")] = Path("look"),
    stage: Annotated[int | None, typer.Option(metavar="N", min=1, help="Draw all blocks of this stage, from 1.")] = None,
    block: Annotated[int | None, typer.Option(metavar="N", min=1, help="Draw all heads of this block, from 1.")] = None,
    head: Annotated[int | None, typer.Option(metavar="N", min=1, help="Draw only this head, from 1.")] = None,
    pixel: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="ROW COLUMN", help="Draw where the token at this pixel of the input looks.", show_default=False),
    ] = None,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="CLASS", help="Name or index of the class whose activation is drawn.", show_default=False
        ),
    ] = None,
    name: Name = None,
    ema: Ema = False,
) -> None:
    """Draw what a network attends to: attention of its blocks, rollout, class activation, and relative position bias.

    Example: [bold]swin-lab look runs/NAME/TIME photo.jpg --stage 1 --block 2 -o attention[/bold]
    """
    folder = _new_folder(out)
    if stage is None and (block is not None or head is not None):
        raise UserError("--block and --head are those of a stage; give --stage N as well")
    from swin_lab.data.transforms import image_transform
    from swin_lab.models.inspection import check_attention, inspect
    from swin_lab.report import print_lines
    from swin_lab.run.swin_network import open_swin

    opened = open_swin(source, name=name, ema=ema)
    check_attention(opened.network)
    choice = Choice(stage, block, head, pixel)
    _check_choice(choice, opened)
    index = None if class_ is None else opened.class_index(class_)
    read = image_transform(opened.preprocessing)
    inputs = [read(file) for file in images]
    folder.mkdir(exist_ok=True)
    inspection = None
    for file, target, image_CHW in zip(images, _targets(images), inputs, strict=True):
        inspection = inspect(opened.network, image_CHW[None])
        prediction = _draw_image(file.name, folder / target, image_CHW, inspection, opened, choice, index)
        print_lines([("written", f"{out / target}  {prediction}")])
    assert inspection is not None  # Typer requires an image.
    _draw_bias(folder / BIAS_FILE, inspection, choice, source)
    print_lines([("written", str(out / BIAS_FILE))])


def _new_folder(out: Path) -> Path:
    folder = out.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; nothing was written. Choose a new one with -o")
    if not folder.parent.is_dir():
        raise UserError(f"{folder.parent} is not a folder; create it first")
    return folder


def _check_choice(choice: Choice, opened: "OpenedSwin") -> None:
    config = opened.network.config
    if choice.stage is not None:
        _check_number("stage", choice.stage, len(config.depths), "the network")
        where = f"stage {choice.stage}"
        if choice.block is not None:
            _check_number("block", choice.block, config.depths[choice.stage - 1], where)
        if choice.head is not None:
            _check_number("head", choice.head, config.num_heads[choice.stage - 1], where)
    if choice.pixel is not None:
        height, width = opened.preprocessing.img_size
        if not (0 <= choice.pixel[0] < height and 0 <= choice.pixel[1] < width):
            given = " ".join(map(str, choice.pixel))
            raise UserError(f"--pixel {given} is outside the network's input of {height}x{width} pixels, counted from 0")


def _check_number(what: str, number: int, count: int, where: str) -> None:
    if number > count:
        raise UserError(f"--{what}={number} does not exist; {where} has {count} {what}{'s' if count != 1 else ''}")


def _targets(images: Sequence[Path]) -> list[str]:
    """Returns a name for the figure of every image; images of one name in several folders are numbered."""
    targets: list[str] = []
    for file in images:
        target, number = f"attention_{file.stem}.png", 1
        while target in targets:
            number += 1
            target = f"attention_{file.stem}_{number}.png"
        targets.append(target)
    return targets


def _draw_image(
    title: str,
    target: Path,
    image_CHW: "Tensor",
    inspection: "Inspection",
    opened: "OpenedSwin",
    choice: Choice,
    class_index: int | None,
) -> str:
    """Writes the figure of an image. Returns the prediction."""
    from swin_lab.data.transforms import visible
    from swin_lab.report import HeatMap, draw_attention

    network = opened.network
    strides = [info.stride for info in network.feature_info]
    share_HW = inspection.rollout()[0, 0]
    maps = [HeatMap("rollout through all blocks", (share_HW * share_HW.numel()).numpy(), "share, 1 = uniform", strides[0])]
    prediction = ""
    if network.config.num_classes:
        logits_K = inspection.logits_BK[0]
        best = int(logits_K.argmax())
        shown = best if class_index is None else class_index
        prediction = f"predicted {opened.name_of(best)}, {logits_K.softmax(dim=0)[best]:.1%}"
        cam_HW = inspection.class_activation([shown])[0]
        logit, mean = float(logits_K[shown]), float(cam_HW.mean())
        bias = round(logit - mean, 2) + 0.0  # The sum is 0.0 where rounding gives -0.0.
        text = f"class activation: {opened.name_of(shown)}\nlogit {logit:.2f} = mean {mean:.2f} + bias {bias:.2f}"
        maps.append(HeatMap(text, cam_HW.numpy(), "part of the logit", strides[-1]))
    blocks = _chosen(inspection, choice)
    maps += [heat_map for attention in blocks for heat_map in _maps_of(attention, choice, strides[attention.stage])]
    pixels_HWC = visible(image_CHW, opened.preprocessing)
    draw_attention(pixels_HWC, maps, target, title=f"{title}: {prediction}".removesuffix(": "))
    return prediction


def _chosen(inspection: "Inspection", choice: Choice) -> "list[BlockAttention]":
    """Returns the blocks that are drawn."""
    if choice.stage is None:
        return list({attention.stage: attention for attention in inspection.attention}.values())
    return [
        attention
        for attention in inspection.attention
        if attention.stage == choice.stage - 1 and choice.block in (None, attention.block + 1)
    ]


def _maps_of(attention: "BlockAttention", choice: Choice, stride: int) -> "list[HeatMap]":
    """Returns the mean over heads, or the chosen head, or both the mean and all heads of a chosen block."""
    from swin_lab.report import HeatMap

    heads: list[int | None] = [None if choice.head is None else choice.head - 1]
    if choice.block is not None and choice.head is None:
        heads += range(attention.weights_BGhTT.shape[2])
    token, label = None, "attention received, 1 = uniform"
    if choice.pixel is not None:
        token, label = (choice.pixel[0] // stride, choice.pixel[1] // stride), "attention of the marked token"
    values = [(attention.received(head) if token is None else attention.seen_from(*token, head))[0].numpy() for head in heads]
    limits = (float(min(v.min() for v in values)), float(max(v.max() for v in values))) if len(values) > 1 else None
    kind = "SW-MSA" if attention.block % 2 else "W-MSA"
    return [
        HeatMap(
            f"stage {attention.stage + 1}, block {attention.block + 1}, {kind}\n"
            + ("mean of heads" if head is None else f"head {head + 1}"),
            values_HW,
            label,
            stride,
            (attention.window, attention.shift),
            token,
            limits,
        )
        for head, values_HW in zip(heads, values, strict=True)
    ]


def _draw_bias(target: Path, inspection: "Inspection", choice: Choice, source: str) -> None:
    from swin_lab.report import BiasMaps, draw_position_bias

    blocks = []
    for attention in _chosen(inspection, choice):
        bias_hMN, (M, N) = attention.bias_hMN, attention.window
        heads = range(len(bias_hMN)) if choice.head is None else range(choice.head - 1, choice.head)
        title = f"stage {attention.stage + 1}, block {attention.block + 1}, windows of {M} × {N}"
        numbers = tuple(head + 1 for head in heads)
        blocks.append(BiasMaps(title, bias_hMN[heads.start : heads.stop].numpy(), numbers))
    draw_position_bias(blocks, target, title=f"Relative position bias of {Path(source).name}")
