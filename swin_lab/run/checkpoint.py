"""Reading the checkpoints that training writes: tensors and plain Python, never code."""

from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.training import CARD

PREFIX = "network."
"""Of the network's tensors among a checkpoint's."""

CARD_KEYS = frozenset(["model", "class_names", "preprocessing", "precision", "device_batch", "config"])
"""What an evaluation needs to know."""

OUR_CLASSES = frozenset(
    ["swin_lab.models.SwinTransformer"]
    + [f"swin_lab.data.{name}" for name in ("Cifar", "Digits", "Folder", "Parquet", "Synthetic")]
)
"""What a file may name to be built without being trusted."""


def find_checkpoint(path: str) -> Path:
    """The file meant by a checkpoint's or a run directory's path: of a run, the best one, else the last.

    Raises:
        UserError: there is none.
    """
    given = Path(path).expanduser().absolute()
    if given.is_dir():
        candidates = [folder / name for name in ("best.ckpt", "last.ckpt") for folder in (given / "checkpoints", given)]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        raise UserError(
            f"checkpoint={path}: the folder holds no checkpoints/best.ckpt or checkpoints/last.ckpt; is it a run directory?"
        )
    if not given.is_file():
        raise UserError(f"checkpoint={path}: there is no such file or folder")
    return given


def read_checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a checkpoint says of itself, and the network's tensors, on the CPU.

    Raises:
        UserError: the file is empty, damaged, or was not written by this project's training.
    """
    if file.stat().st_size == 0:
        raise UserError(f"{file} is empty; the copy or the disk it came from may have been full")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(f"{file} holds Python objects besides tensors, or is no checkpoint; it is not loaded") from error
    except Exception as error:  # torch's readers raise errors of any kind for bytes that are no checkpoint
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} cannot be read, it is damaged or no checkpoint: {what}") from error
    if not isinstance(content, dict) or not isinstance(content.get(CARD), dict):
        held = ", ".join(sorted(map(str, content))[:5]) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{file} is no checkpoint of swin_lab: it holds {held}")
    weights = content.get("state_dict")
    if not isinstance(weights, dict):
        raise UserError(f"{file} is damaged: it describes a model and holds no weights (state_dict)")
    missing = CARD_KEYS - set(content[CARD])
    if missing:
        raise UserError(f"{file} is damaged: its description lacks {', '.join(sorted(missing))}")
    return content[CARD], {key.removeprefix(PREFIX): value for key, value in weights.items() if key.startswith(PREFIX)}


def refuse_foreign_classes(file: Path, nodes: dict[str, dict[str, Any]]) -> None:
    """Raises UserError if a file asks to build a class that is not one of this project's own."""
    for where, node in nodes.items():
        foreign = [target for target in _targets(node) if target not in OUR_CLASSES]
        if foreign:
            raise UserError(
                f"{file} wants to build its {where} with {foreign[0]}, which is not part of swin_lab.\n"
                "If you trust the file, add trust=true."
            )


def _targets(value: Any) -> Iterator[object]:
    """Every class that a node names, however deep."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value["_target_"]
        for child in value.values():
            yield from _targets(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _targets(child)
