"""Restoring a checkpoint: file -> network, preprocessing, class names and report. The file is read once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from swin_lab.errors import UserError
from swin_lab.metadata import Metadata
from swin_lab.models import SwinTransformer
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from swin_lab.run.instantiate import instantiate
from swin_lab.run.model import SWIN
from swin_lab.run.settings import RestoreConfig
from swin_lab.run.trust import refuse_foreign_classes
from swin_lab.training import Task
from swin_lab.weights import Contents, load
from swin_lab.weights.preprocessing import preset_preprocessing


@dataclass(frozen=True)
class Restored:
    """Contains everything in a checkpoint that an evaluation or a prediction needs."""

    network: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    report: Sequence[tuple[str, str]]
    """Description of the weights as (label, text)."""


def restore(
    contents: Contents,
    task: Task | None,
    class_names: Sequence[str] | None,
    settings: RestoreConfig,
    *,
    trust: bool = False,
) -> Restored:
    """Builds the network of a checkpoint and fills it with its weights.

    Args:
        contents: what `swin_lab.weights.read_source` has read.
        task: the task that builds the network around the model. If None, the network is the model.
        class_names: classes of the data that the network is used on. If None, those of the checkpoint.
        settings: how the weights are loaded into the model.
        trust: whether classes from outside swin_lab that the checkpoint names may be imported.

    Raises:
        UserError: the checkpoint names a class that is not trusted, or does not fit the classes.
    """
    metadata = contents.metadata
    if metadata is not None and (metadata.model.get("_target_") != SWIN or (task is not None and not task.outputs_are_classes)):
        return _restore_exactly(contents, metadata, task, class_names, settings.ema, trust)
    stored = metadata.class_names if metadata is not None and settings.head == "auto" else None
    if stored and class_names is not None and not set(class_names) < set(stored):  # A subset of the classes is found by name.
        check_same_classes(class_names, stored)
    network, report = load(
        contents,
        class_names=list(class_names) if class_names is not None else None,
        name=settings.name,
        head=settings.head,
        img_size=settings.img_size,
        window_size=settings.window_size,
        bias_interpolation=settings.bias_interpolation,
        ema=settings.ema,
        strict=settings.strict,
    )
    if class_names is not None and not report.keeps_all_classes:
        raise UserError(
            f"{contents.file.name} cannot be evaluated on these {len(class_names)} classes; its head would be "
            f"{report.head}.\nUse data of the checkpoint's classes, or transfer.head=keep if they are the same in this order"
        )
    preprocessing = network.preprocessing or _default_preprocessing(contents.file, network)
    return Restored(network, preprocessing, network.class_names, report.lines())


def _default_preprocessing(file: Path, network: SwinTransformer) -> Preprocessing:
    """Returns the official code's preprocessing, for a native file that was saved without one."""
    if network.in_channels not in (1, 3):
        raise UserError(f"{file.name} has {network.in_channels} input channels; images have 3 (RGB) or 1 (greyscale)")
    return Preprocessing.for_data(
        img_size=network.img_size,
        channels=network.in_channels,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        **preset_preprocessing("official", network.config),
    )


def _restore_exactly(
    contents: Contents,
    metadata: Metadata,
    task: Task | None,
    class_names: Sequence[str] | None,
    ema: bool,
    trust: bool,
) -> Restored:
    """Restores the network of a run as it was trained: of any class, and with whatever its task has built around the model."""
    file = contents.file
    if not trust:
        refuse_foreign_classes(file, {"model": metadata.model})
    if class_names is not None and metadata.class_names is not None and (task is None or task.outputs_are_classes):
        check_same_classes(class_names, metadata.class_names)
    if metadata.preprocessing is None:
        raise UserError(f"{file} is damaged: its metadata has no preprocessing")
    model: nn.Module = instantiate("model", metadata.model, kind=nn.Module)
    network = task.build_network(model) if task is not None else model
    try:
        network.load_state_dict(contents.network_tensors(ema))
    except RuntimeError as error:
        raise UserError(f"{file} does not fit a {type(model).__name__}: {' '.join(str(error).split()[:40])}") from error
    return Restored(network, metadata.preprocessing, metadata.class_names, [("weights", f"{file}, a {type(model).__name__}")])


def check_same_classes(given: Sequence[str], trained: Sequence[str]) -> None:
    """Raises UserError unless data and checkpoint have the same classes in the same order."""
    if list(given) == list(trained):
        return
    if len(given) != len(trained):
        raise UserError(
            f"the data has {len(given)} classes and the checkpoint was trained on {len(trained)}; use data of the same classes"
        )
    first = next(i for i in range(len(given)) if given[i] != trained[i])
    raise UserError(
        f"the data's classes differ from the checkpoint's: class {first} is {given[first]!r} in the data "
        f"and {trained[first]!r} in the checkpoint; name the class folders as in training"
    )


def merged(stored: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any]:
    """Returns a stored node with the keys that are given for this evaluation; null keeps the stored value."""
    return {**stored, **{key: value for key, value in (given or {}).items() if value is not None}}
