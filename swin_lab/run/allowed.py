"""Classes that a checkpoint may name without trust=true, their keys, and bounds of their values: the list of `trust`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, StringConstraints

from swin_lab.data import LoaderConfig
from swin_lab.data.classes import MAX_CLASSES
from swin_lab.data.datamodule import MAX_WORKERS
from swin_lab.validation import Expected, type_hints

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
_GENERATED: Mapping[str, Any] = {"split_seed": int, "several_labels": bool}
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
    SYNTHETIC: {"num_classes": Classes, "train_images": Count, "val_images": Count, "img_size": Pixels, **_GENERATED},
    "swin_lab.data.Zipped": LOCAL,
}
"""Sources of images that a file may name, and their keys. `MapDataset` is missing: it builds whatever it is given."""

LOADING: Mapping[str, Any] = {
    **type_hints(LoaderConfig),
    "num_workers": Workers,
    "cache_mib": Annotated[int, Ge(0), Le(16_384)],
}

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
_OF_LOSS = ("gamma_negative", "gamma_positive", "margin", "label_smoothing")
_BINARY: Mapping[str, Any] = {"loss": str, "class_weights": str | tuple[Number, ...], **dict.fromkeys(_OF_LOSS, Number)}
TASK: Mapping[str, Mapping[str, Any]] = {
    "swin_lab.tasks.Classification": CLASSIFICATION,
    "swin_lab.tasks.Distillation": {**CLASSIFICATION, **_LOADED, **_TAUGHT},
    "swin_lab.tasks.MultiLabelClassification": {**_BINARY, "mixing": MIXING, "flip": bool, "thresholds": tuple[Number, ...]},
    "swin_lab.tasks.SimMIM": {"mask_patch_size": Pixels, "mask_ratio": Number, "norm_target_size": Side},
}

LISTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {"data": DATA, "model": MODELS, "task": TASK}
"""Part of a checkpoint -> class -> key -> type."""
