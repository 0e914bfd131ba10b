"""What a checkpoint may ask for without trust=true: the one list of classes, their keys, and bounds of their values.

Everything that is not on the list is refused before anything is imported or built, so that a file can import no code, connect
to no host, write nothing, and occupy only as much memory as its own weights or small data need. No string is interpolated.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, StringConstraints

from swin_lab.data import LoaderConfig
from swin_lab.data.classes import MAX_CLASSES
from swin_lab.data.datamodule import MAX_WORKERS
from swin_lab.data.sources import __all__ as SOURCES
from swin_lab.data.sources.synthetic import bytes_in_memory
from swin_lab.errors import UserError
from swin_lab.metadata import Mapped, refuse_unprintable
from swin_lab.models.external import __all__ as EXTERNAL_MODELS
from swin_lab.run.model import SWIN
from swin_lab.run.settings import Node
from swin_lab.run.targets import TARGET
from swin_lab.tasks import __all__ as TASKS
from swin_lab.validation import Expected, check_value, type_hints
from swin_lab.weights.source_config import config_of_metadata

CIFAR, SYNTHETIC = "swin_lab.data.Cifar", "swin_lab.data.Synthetic"

MAX_SYNTHETIC_BYTES, SYNTHETIC_SIZES = 2**30, ("train_images", "val_images", "img_size")


def _local(path: str) -> str:
    if "://" in path:
        raise ValueError(path)
    return path


def _file(path: str) -> str:
    if Path(path).exists() and not Path(path).is_file():  # A device, such as /dev/zero, can be read without end.
        raise ValueError(path)
    return path


LocalPath = Annotated[str, Expected("a path on this machine"), AfterValidator(_local)]
ListFile = Annotated[str, Expected("the path of a file"), AfterValidator(_local), AfterValidator(_file)]
Number = int | float
Count = Annotated[int, Ge(0), Le(1_000_000)]
Classes = Annotated[int, Gt(0), Le(100_000)]
Pixels = Annotated[int, Gt(0), Le(512)]
Side = Annotated[int, Gt(0), Le(1024)]
Workers = Annotated[int, Ge(0), Le(max(MAX_WORKERS, os.cpu_count() or 1))]

SPLIT: Mapping[str, Any] = {"val_fraction": Number, "split_seed": int}
_COUNTS: Mapping[str, Any] = {"train_images": Count, "val_images": Count}
LOCAL: Mapping[str, Any] = {"root": LocalPath, "val_only": bool}

DATA: Mapping[str, Mapping[str, Any]] = {
    CIFAR: {"variant": str, "root": LocalPath, "download": bool},  # see `allowed_part`
    "swin_lab.data.Digits": {"img_size": Pixels, **SPLIT},
    "swin_lab.data.Folder": {**LOCAL, **SPLIT},
    "swin_lab.data.ImageNet": {**LOCAL, "variant": str, "layout": str, "train_images": int, "val_images": int},
    "swin_lab.data.Listed": {**LOCAL, "train_list": ListFile, "val_list": ListFile, "num_classes": Classes},
    "swin_lab.data.MultiLabel": {**LOCAL, **SPLIT, "targets": ListFile, "val_targets": ListFile, "separator": str},
    "swin_lab.data.Parquet": {**LOCAL, **SPLIT, "image_column": str, "label_column": str, "in_memory": Literal[False]},
    "swin_lab.data.Shards": LOCAL,
    SYNTHETIC: {"num_classes": Classes, **_COUNTS, "img_size": Pixels, "split_seed": int, "several_labels": bool},
    "swin_lab.data.Zipped": LOCAL,
}
"""Sources of images that a file may name, and their keys. `MapDataset` is missing: it builds whatever it is given."""

_CACHE = Annotated[int, Ge(0), Le(16_384)]
LOADING: Mapping[str, Any] = {**type_hints(LoaderConfig), "num_workers": Workers, "cache_mib": _CACHE}

_EXTERNAL: Mapping[str, Any] = {
    "name": Annotated[str, Expected("the name of an architecture"), StringConstraints(pattern=r"^[\w.-]+$")],
    "num_classes": Annotated[int, Gt(0), Le(MAX_CLASSES)],
    "img_size": Side | tuple[Side, Side],
    "pretrained": Literal[False],
}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "swin_lab.models.external.TimmModel": {**_EXTERNAL, "in_channels": Literal[1, 3], "drop_path_rate": Number},
    "swin_lab.models.external.TorchvisionModel": _EXTERNAL,
}
"""Models besides SWIN that a file may name. `TransformersModel` is missing: it reads its configuration from the hub."""

MIXING: Mapping[str, Mapping[str, Any]] = {
    "swin_lab.tasks.Mixing": {"mixup": Number, "cutmix": Number, "prob": Number, "switch_prob": Number, "mode": str}
}
CLASSIFICATION: Mapping[str, Any] = {"label_smoothing": Number, "mixing": MIXING, "flip": bool, "real_labels": bool}
_LOADED: Mapping[str, Any] = {"teacher": str, "teacher_transfer": dict[str, Any], "teacher_trust": bool}  # by a training only
_TAUGHT: Mapping[str, Any] = {"kind": str, "share": Number, "temperature": Number, "features": Number, "feature_stages": list}
_PER_CLASS: Mapping[str, Any] = {"class_weights": str | tuple[Number, ...], "thresholds": tuple[Number, ...]}
_BINARY: Mapping[str, Any] = {"loss": str, "gamma_negative": Number, "gamma_positive": Number, "margin": Number, **_PER_CLASS}
TASK: Mapping[str, Mapping[str, Any]] = {
    "swin_lab.tasks.Classification": CLASSIFICATION,
    "swin_lab.tasks.Distillation": {**CLASSIFICATION, **_LOADED, **_TAUGHT},
    "swin_lab.tasks.MultiLabelClassification": {**CLASSIFICATION, **_BINARY},
    "swin_lab.tasks.SimMIM": {"mask_patch_size": Pixels, "mask_ratio": Number, "norm_target_size": Side},
}

LISTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {"data": DATA, "model": MODELS, "task": TASK}

_PACKAGES = {"tasks": TASKS, "data": SOURCES, "models.external": EXTERNAL_MODELS}
OWN_CLASSES = frozenset([SWIN, *(f"swin_lab.{package}.{name}" for package, names in _PACKAGES.items() for name in names)])
"""Classes of this version that its checkpoints name."""


def needs_trust(nodes: Mapping[str, Node]) -> bool:
    """Returns whether a checkpoint with these nodes can only be evaluated with trust=true."""
    try:
        for where, node in nodes.items():
            allowed_part(Path(), where, node)
    except UserError:
        return True
    return False


def allowed_part(file: Path, where: str, node: Node) -> Node:
    """Returns a node of a file if it asks for nothing that is not on the list; data that would be downloaded is only read.

    Args:
        file: the checkpoint, for messages.
        where: data, model or task.
        node: plain Python, from the checkpoint; keys that the user has given are absent.

    Raises:
        UserError: the node names a class or a key that is not on the list, or a value out of bounds.
    """
    try:
        refuse_unprintable(where, node)
    except UserError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    for target in _targets(node):
        if target not in OWN_CLASSES:
            raise UserError(f"{file} {_foreign(target, where)}")
    if where == "model" and node.get(TARGET) == SWIN:
        try:
            config_of_metadata(node)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        return node
    try:
        _check(where, node, LISTS[where], LOADING if where == "data" else {})
        _check_synthetic(node)
    except UserError as error:
        raise UserError(
            f"{file} asks for more than a checkpoint may: {error}\nIf you trust the file, add trust=true" + _or_give(where)
        ) from error
    return node | {"download": False} if node.get(TARGET) == CIFAR else node


def _check(where: str, node: Node, listed: Mapping[str, Mapping[str, Any]], further: Mapping[str, Any]) -> None:
    """Checks a node against a list of classes and their keys; null is allowed for every key."""
    target = node.get(TARGET)
    if target is not None and target not in listed:
        raise UserError(f"{where}._target_={target} is not a class that it may name there")
    for key, value in node.items():
        annotation = ({TARGET: str} | dict(further) | dict(listed.get(str(target), {}))).get(key)
        if annotation is None:
            raise UserError(f"{where}.{key}={value} is not a key that it may set")
        if isinstance(annotation, Mapping):
            if value:
                _check(f"{where}.{key}", check_value(f"{where}.{key}", value, Mapped), annotation, {})
        elif value is not None:
            check_value(f"{where}.{key}", value, annotation)


def _check_synthetic(node: Node) -> None:
    if node.get(TARGET) == SYNTHETIC:
        size = bytes_in_memory(**{key: value for key, value in node.items() if key in SYNTHETIC_SIZES and value is not None})
        if size > MAX_SYNTHETIC_BYTES:
            raise UserError(f"data would have {size:,} bytes, more than {MAX_SYNTHETIC_BYTES:,}")


def _or_give(where: str) -> str:
    return {"data": ", or give other data with data=...", "task": ", or give +task.KEY=VALUE"}.get(where, "")


def _foreign(target: object, where: str) -> str:
    if isinstance(target, str) and target.startswith("swin_lab."):
        return (
            f"names {target} for its {where}, which is not a class for that in this version of swin_lab.\n"
            "It was written by another version or is damaged; evaluate it with that version"
        )
    return f"names the class {target} for its {where}, which is not part of swin_lab.\nIf you trust the file, add trust=true."


def _targets(value: Any) -> Iterator[object]:
    """Yields every class that a node names, at any depth."""
    if isinstance(value, dict):
        if TARGET in value:
            yield value[TARGET]
        for child in value.values():
            yield from _targets(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _targets(child)
