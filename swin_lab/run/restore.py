"""Restoring a checkpoint: file -> network, preprocessing, class names and report. The file is read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from swin_lab.errors import UserError
from swin_lab.metadata import Metadata
from swin_lab.models import SwinTransformer
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from swin_lab.run.instantiate import instantiate
from swin_lab.run.model import SWIN, input_size
from swin_lab.run.settings import RestoreConfig
from swin_lab.run.trust import allowed_part
from swin_lab.training import Task
from swin_lab.weights import Contents, load
from swin_lab.weights.checkpoint import listed
from swin_lab.weights.preprocessing import preset_preprocessing
from swin_lab.weights.values import why_unusable

TRUST = "If you trust the file, add trust=true"

MAX_WINDOW_SIDE = 64
"""Upper bound of the windows of a file: the index of pairs of tokens has side^4 entries, 130 MB at 64."""

MAX_BUFFER_BYTES = 2**30
"""Upper bound of what a network of another library computes from its image size and keeps, such as indices of pairs."""


@dataclass(frozen=True)
class Restored:
    """Contains everything in a checkpoint that an evaluation or a prediction needs."""

    network: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    report: Sequence[tuple[str, str]]
    """Description of the weights as (label, text)."""
    thresholds: tuple[float, ...] | None = None  # of each class, if images have several labels


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
        trust: whether the checkpoint may ask for more than `swin_lab.run.allowed` lists, such as classes from outside swin_lab.

    Raises:
        UserError: the checkpoint names a class that is not trusted, or does not fit the classes.
    """
    metadata = contents.metadata
    if metadata is not None and not trust:
        allowed_part(contents.file, "model", metadata.model)
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
    if not trust and settings.window_size is None and (side := max(map(max, network.config.windows))) > MAX_WINDOW_SIDE:
        raise UserError(
            f"{contents.file}: windows of {side} tokens along a side need much memory; published ones have 32 at most.\n{TRUST}"
        )
    if report.checkpoint.unusable:
        raise UserError(f"{contents.file.name} cannot be evaluated: {listed(report.checkpoint.unusable)}")
    preprocessing = network.preprocessing or default_preprocessing(contents.file, network)
    return Restored(network, preprocessing, network.class_names, report.lines(), network.thresholds)


def default_preprocessing(file: Path, network: SwinTransformer) -> Preprocessing:
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
    contents: Contents, metadata: Metadata, task: Task | None, class_names: Sequence[str] | None, ema: bool, trust: bool
) -> Restored:
    """Restores the network of a run as it was trained: of any class, and with whatever its task has built around the model."""
    file = contents.file
    if class_names is not None and metadata.class_names is not None and (task is None or task.outputs_are_classes):
        check_same_classes(class_names, metadata.class_names)
    if metadata.preprocessing is None:
        raise UserError(f"{file} is damaged: its metadata has no preprocessing")
    tensors = contents.network_tensors(ema)
    if not trust:  # Nothing is allocated for a description that the tensors contradict.
        _check_shapes(file, metadata, task, tensors)
    network, kind = _build(file, metadata, task)
    _refuse_infinite_values(file, network, tensors)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{file} does not fit a {kind}: {' '.join(str(error).split()[5:15])}") from error
    weights = [("weights", f"{file}, a {kind}"), *metadata.notes]
    return Restored(network, metadata.preprocessing, metadata.class_names, weights, metadata.thresholds)


def _build(file: Path, metadata: Metadata, task: Task | None) -> tuple[nn.Module, str]:
    """Returns the network of a `model` node, with what its task builds around it, and the name of the model's class.

    Raises:
        UserError: the model is for another image size than the preprocessing.
    """
    model: nn.Module = instantiate("model", metadata.model, kind=nn.Module)
    own, stored = getattr(model, "img_size", None), metadata.preprocessing
    if own is not None and stored is not None and input_size(model, metadata.model, None) != stored.img_size:
        raise UserError(f"{file} is damaged: its model is for images of {own}, its preprocessing for {stored.img_size}")
    return task.build_network(model) if task is not None else model, type(model).__name__


class _ParametersWithoutMemory(TorchFunctionMode):
    """Places what layers allocate on the meta device, but not what is computed: RegNets of torchvision compute their sizes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.zeros, torch.ones, torch.full) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _check_shapes(file: Path, metadata: Metadata, task: Task | None, tensors: Mapping[str, Tensor]) -> None:
    """Raises UserError if a network, built without memory, has other tensors than a file."""
    try:
        with torch.device("meta"):
            network, kind = _build(file, metadata, task)
    except NotImplementedError:
        with _ParametersWithoutMemory():
            network, kind = _build(file, metadata, task)
    if (size := sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())) > MAX_BUFFER_BYTES:
        raise UserError(f"{file}: a {kind} for images of this size needs {size:,} bytes besides its weights.\n{TRUST}")
    expected = network.state_dict()
    for name in expected.keys() ^ tensors.keys():
        raise UserError(f"{file} does not fit a {kind}: {'it has no' if name in expected else 'it also has'} {name}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise UserError(f"{file} does not fit a {kind}: {name} is {list(tensor.shape)}, not {list(expected[name].shape)}")


def _refuse_infinite_values(file: Path, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raises UserError for NaN and infinity in tensors that are finite in a new network; every metric would be NaN."""
    for name, own in network.state_dict().items():
        tensor = tensors.get(name)
        if tensor is not None and own.is_floating_point() and bool(own.isfinite().all()) and (why := why_unusable(tensor)):
            raise UserError(f"{file}: {name} {why}")


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
