"""Loads a model from a file of any origin."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from swin_lab.errors import UserError
from swin_lab.metadata import check_class_names
from swin_lab.models import SwinTransformer
from swin_lab.models.config import Windows
from swin_lab.validation import check_value
from swin_lab.weights.checkpoint import open_checkpoint
from swin_lab.weights.files import Contents
from swin_lab.weights.memory import contents_of
from swin_lab.weights.transfer import LoadReport, refuse_partial, transfer, with_pretrained_windows

Source = str | Path | Contents | Mapping[str, Any] | nn.Module
"""Where weights are: at a path or on the hub, read already, or in memory."""


def load_model(
    source: Source,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    head: str = "auto",
    img_size: int | Sequence[int] | None = None,
    window_size: Windows | None = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    bias_interpolation: str = "bicubic",
    ema: bool = False,
    strict: bool = True,
) -> SwinTransformer:
    """Loads weights of any origin and prints a report on stderr; the model is in evaluation mode.

    Args:
        source: a file, run directory, folder of transformers or timm, OWNER/NAME on the hub, or a result of `read_source`; or
            weights in memory: a state dict, or a model of swin_lab, timm, torchvision or transformers, which stays unchanged.
        name: the expected variant; needed only for V2 files that do not contain their window sizes.
        num_classes: number of classes; 0 for no head. If None, that of the file, or as many as `class_names`.
        class_names: names of the model's classes, row by row.
        head: `auto`, `keep`, `reinit`, `map22k` or `by_name`, see `swin_lab.weights.plan_head`.
        img_size: image size in pixels, see `SwinConfig`. If None, the file's own. Any size works at forward time.
        window_size: see `SwinConfig`. If None, the file's own. Bias tables are resized; V2 keeps its coordinates.
        in_channels: channels of the images; weights for 3 can be adapted. If None, the file's own.
        drop_path_rate: see `SwinConfig`. If None, the file's own.
        bias_interpolation: how V1's bias tables are resized, `bicubic` or `geometric`.
        ema: whether to load the moving average of the weights, if the file contains both.
        strict: whether missing, unknown and mismatched tensors are an error. If False, the report lists them.

    Raises:
        UserError: the source cannot be read, contains no Swin Transformer, or does not fit the arguments.
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
        bias_interpolation=bias_interpolation,
        ema=ema,
        strict=strict,
    )
    print(report, file=sys.stderr)
    return model


def load(
    source: Source,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    head: str = "auto",
    img_size: int | Sequence[int] | None = None,
    window_size: Windows | None = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    bias_interpolation: str = "bicubic",
    ema: bool = False,
    strict: bool = True,
) -> tuple[SwinTransformer, LoadReport]:
    """Loads weights like `load_model`, but prints nothing and returns the report as well."""
    for argument, value in (("strict", strict), ("ema", ema)):
        check_value(argument, value, bool)
    if class_names is not None:
        check_class_names(class_names)
    if isinstance(source, Mapping | nn.Module):
        source = contents_of(source)
    if not isinstance(source, str | Path | Contents):
        raise UserError(f"weights are a path, a state dict or a model, not a {type(source).__name__}")
    checkpoint = open_checkpoint(source, name=name, img_size=img_size, window_size=window_size, ema=ema)
    if strict:
        refuse_partial(checkpoint)  # No network is built from a description that its tensors contradict.
    changes: dict[str, Any] = {
        "num_classes": len(class_names) if num_classes is None and class_names is not None else num_classes,
        "img_size": img_size,
        "window_size": window_size,
        "in_channels": in_channels,
        "drop_path_rate": drop_path_rate,
        "pretrained_window_sizes": 0,  # It is replaced below, when the windows are known.
    }
    config = replace(checkpoint.config, **{key: value for key, value in changes.items() if value is not None})
    network = SwinTransformer(replace(config, **with_pretrained_windows(checkpoint, config.as_dict())))
    report = transfer(
        checkpoint, network, head=head, class_names=class_names, bias_interpolation=bias_interpolation, strict=strict
    )
    return network.eval(), report
