"""From a file of any ecosystem to a model, with an account of what was done."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.imagenet import ROWS_1K, wordnet_ids
from swin_lab.models import SwinTransformer
from swin_lab.models.shape import Windows, plain
from swin_lab.weights.adapt import adapt_channels, check_method, resize_table
from swin_lab.weights.checkpoint import BODY, Checkpoint, listed, open_checkpoint, side_by_side, simplest
from swin_lab.weights.head import HeadPlan, fill_head, plan_head
from swin_lab.weights.preprocessing import preset


@dataclass(frozen=True)
class Report:
    """What became of a file's tensors."""

    checkpoint: Checkpoint
    loaded: int
    """Of the network's tensors in the file."""
    resized: list[str]
    """In words, one entry per kind."""
    head: str
    rows: list[int | None] | None
    """Of the file's head, for each class, None for a class that starts anew; None if the whole head does."""
    new: list[str]
    """Our names of tensors that the file did not fill, the head's aside."""

    def lines(self) -> list[tuple[str, str]]:
        """(what, in words), for printing."""
        checkpoint = self.checkpoint
        done = [
            ("loaded", f"{self.loaded} of {len(checkpoint.tensors)} tensors"),
            *(("resized", entry) for entry in self.resized),
            ("head", self.head),
            *([("new", listed(self.new))] if self.new else []),
        ]
        return [*checkpoint.origin(), *done, *checkpoint.asides()]

    def __str__(self) -> str:
        return "\n".join(f"{label:<10} {text}" for label, text in self.lines())


def load_model(
    source: str | Path,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    head: str = "auto",
    img_size: int | Sequence[int] | None = None,
    window_size: Windows | None = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    tables: str = "bicubic",
    ema: bool = False,
    strict: bool = True,
) -> SwinTransformer:
    """Loads weights of any origin and prints on stderr what it did; the model is in evaluation mode.

    Args:
        source: a file (.pth, .pt, .bin, .ckpt, .safetensors), a run directory, a folder of transformers or timm, or
            OWNER/NAME on the Hugging Face hub. Layouts: swin_lab, official, timm, torchvision, transformers, mmpretrain.
        name: the variant the file must hold; needed only for V2 files that do not tell their windows.
        num_classes: of the model; None for the file's own (or as many as `class_names`), 0 for no head.
        class_names: names of the model's classes, row by row.
        head: `auto`, `keep`, `reinit`, `map22k` or `by_name`, see `swin_lab.weights.plan_head`.
        img_size: pixels the model is made for; None for the file's own. Any size works at forward time.
        window_size: as in `SwinTransformer`; None for the file's own. Tables are resized; V2 keeps its coordinates.
        in_channels: of the images; None for the file's own. From 3 to any other number.
        drop_path_rate: as in `SwinTransformer`.
        tables: how V1's tables are resized, `bicubic` or `geometric`.
        ema: whether the moving average of the weights is wanted, where the file holds both.
        strict: False to load what there is in spite of missing, misshapen or unknown tensors; the report lists them.

    Raises:
        UserError: the source cannot be read, holds no Swin Transformer, or does not fit what is asked.
    """
    model, report = load(
        source,
        name=name,
        num_classes=num_classes,
        class_names=class_names,
        head=head,
        img_size=img_size,
        window_size=window_size,
        in_channels=in_channels,
        drop_path_rate=drop_path_rate,
        tables=tables,
        ema=ema,
        strict=strict,
    )
    print(report, file=sys.stderr)
    return model


def load(
    source: str | Path,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    head: str = "auto",
    img_size: int | Sequence[int] | None = None,
    window_size: Windows | None = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    tables: str = "bicubic",
    ema: bool = False,
    strict: bool = True,
) -> tuple[SwinTransformer, Report]:
    """As `load_model`, but prints nothing and returns the report as well."""
    checkpoint = open_checkpoint(source, name=name, img_size=img_size, window_size=window_size, ema=ema)
    classes = num_classes if num_classes is not None or class_names is None else len(class_names)
    wanted = {
        "num_classes": classes,
        "img_size": img_size,
        "window_size": window_size,
        "in_channels": in_channels,
        "drop_path_rate": drop_path_rate,
    }
    network = SwinTransformer(
        **with_trained_windows(
            checkpoint, checkpoint.config | {key: value for key, value in wanted.items() if value is not None}
        )
    )
    report = transfer(checkpoint, network, head=head, class_names=class_names, tables=tables, strict=strict)
    return network.eval(), report


def with_trained_windows(checkpoint: Checkpoint, config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a network that the checkpoint is to fill; for V2 with the windows its bias has learned from.

    Args:
        checkpoint: where the weights come from.
        config: arguments of `SwinTransformer`.

    Raises:
        UserError: the network is another one than the checkpoint's.
    """
    for key in BODY:
        if config[key] != checkpoint.config[key]:
            fitting = f"; the file is a {checkpoint.variants[0]}" if checkpoint.variants else ""
            raise UserError(
                f"{checkpoint.source} does not fit the model: {key} is {checkpoint.config[key]} in the file "
                f"and {config[key]} in the model{fitting}"
            )
    if config["version"] == 1:
        return config
    trained = checkpoint.shape.trained_windows
    with torch.device("meta"):
        windows = SwinTransformer(**config | {"pretrained_window_sizes": 0}).shape.windows
    return config | {"pretrained_window_sizes": 0 if windows == trained else simplest(plain(trained))}


def transfer(
    checkpoint: Checkpoint,
    network: SwinTransformer,
    *,
    head: str = "auto",
    class_names: Sequence[str] | None = None,
    tables: str = "bicubic",
    strict: bool = True,
) -> Report:
    """Fills a network with a checkpoint's weights, and its card with classes and preprocessing; all or nothing.

    Args:
        checkpoint: where the weights come from.
        network: with the same version, widths, depths and heads; made with the arguments of `with_trained_windows`.
        head: see `plan_head`.
        class_names: of the network's classes, if they are known.
        tables: `bicubic` or `geometric`.
        strict: whether missing, misshapen, unusable and unknown tensors are an error.

    Raises:
        UserError: as said above; the network is then as it was.
    """
    check_method(tables)
    if strict:
        _refuse_partial(checkpoint)
    shape, source = network.shape, checkpoint.shape
    names_of_file = checkpoint.card.get("class_names")
    held = checkpoint.tensors
    whole_head = "head.weight" in held and not _bad(checkpoint, "head.weight")
    bias = held["head.bias"] if "head.bias" in held and not _bad(checkpoint, "head.bias") else None
    plan = plan_head(head, source.num_classes if whole_head else 0, shape.num_classes, names_of_file, class_names)

    filled: dict[str, Tensor] = {}
    resized: Counter[str] = Counter()
    new: list[str] = []
    for key, wanted in network.state_dict().items():
        tensor = held.get(key)
        if key.startswith("head."):
            continue
        if tensor is None or _bad(checkpoint, key):
            new.append(key)
            continue
        if key.endswith("relative_position_bias_table"):
            i = int(key.split(".")[1])
            if source.windows[i] != shape.windows[i]:
                tensor = resize_table(tensor, source.windows[i], shape.windows[i], tables)
                resized[f"tables {_table(source.windows[i])} -> {_table(shape.windows[i])} ({tables})"] += 1
        elif key == "embed.proj.weight" and tensor.shape[1] != wanted.shape[1]:
            resized[f"patch embedding from {tensor.shape[1]} to {wanted.shape[1]} input channels"] += 1
            tensor = adapt_channels(tensor, wanted.shape[1])
        filled[key] = tensor
    if shape.trained_windows != shape.windows:
        pairs = zip(shape.trained_windows, shape.windows, strict=True)
        changes = dict.fromkeys(
            f"{side_by_side(trained)} -> {side_by_side(window)}" for trained, window in pairs if trained != window
        )
        resized[f"windows {', '.join(changes)}: the bias keeps the coordinates of its training"] += 1

    network.load_state_dict(filled, strict=False)
    if plan.rows is not None:
        assert isinstance(network.head, nn.Linear)
        fill_head(network.head, plan, held["head.weight"], bias)
        new += ["head.bias"] * (bias is None)
    network.card = {
        "class_names": _names_of_network(plan, class_names, names_of_file),
        "preprocessing": _preprocessing_for(network, checkpoint.card.get("preprocessing")),
    }
    loaded = len(filled) + (1 + (bias is not None) if plan.rows is not None else 0)
    kinds = [f"{count} {kind}" if kind.startswith("tables") else kind for kind, count in resized.items()]
    return Report(checkpoint, loaded, kinds, plan.said, plan.rows, new)


def _refuse_partial(checkpoint: Checkpoint) -> None:
    headless = checkpoint.shape.num_classes == 0
    missing = [key for key in checkpoint.missing if not (headless and key.startswith("head."))]
    problems = [
        f"{what} {len(names)} of its tensors: {listed(names)}"
        for what, names in (
            ("lacks", missing),
            ("has the wrong shape for", checkpoint.misshapen),
            ("holds no usable values in", checkpoint.unusable),
        )
        if names
    ]
    if checkpoint.unexpected:
        problems.append(f"holds {len(checkpoint.unexpected)} tensors that no Swin has: {listed(checkpoint.unexpected)}")
    if problems:
        raise UserError(
            f"{checkpoint.source} (layout {checkpoint.layout.label}) "
            + "\nand ".join(problems)
            + "\nNothing was loaded; strict=false loads what there is."
        )


def _bad(checkpoint: Checkpoint, key: str) -> bool:
    """Whether a tensor of the file cannot be used: it has the wrong shape, or is not of floating point."""
    tensor = checkpoint.tensors[key]
    return any(entry.startswith(f"{key} is ") for entry in checkpoint.misshapen) or not tensor.is_floating_point()


def _names_of_network(plan: HeadPlan, wanted: Sequence[str] | None, of_file: Sequence[str] | None) -> list[str] | None:
    if wanted is not None:
        return list(wanted)
    if plan.rows is None:
        return None
    if of_file is not None and plan.rows == list(range(len(of_file))):
        return list(of_file)
    return list(wordnet_ids(ROWS_1K) or ()) if len(plan.rows) == ROWS_1K else None


def _preprocessing_for(network: SwinTransformer, of_file: dict[str, Any] | None) -> dict[str, Any] | None:
    """The file's, for the size and channels of the network."""
    if of_file is None:
        return None
    channels = network.shape.in_channels
    changed = {"img_size": list(network.shape.img_size), "channels": channels}
    if channels != of_file["channels"]:
        changed |= {key: [sum(of_file[key]) / len(of_file[key])] * channels for key in ("mean", "std")}
    if of_file.get("preset"):  # which depends on the size
        changed |= preset(of_file["preset"], network.config)
    return of_file | changed


def _table(window: tuple[int, int]) -> str:
    return f"{2 * window[0] - 1}x{2 * window[1] - 1}"
