"""Reading weight files of any origin without running a line of code from them.

A torch file is a pickle: torch's own restricted reader takes tensors and plain Python from it, and for a short list of
classes that published files carry beside their weights an inert stand-in. Anything else is named and refused.
"""

import json
import re
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from swin_lab.card import CARD
from swin_lab.errors import UserError

TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class Contents:
    """What a file, or a folder of transformers or timm, holds."""

    file: Path
    tree: dict[Any, Any]
    """Tensors by name, perhaps deep inside: {"model": {...}, "epoch": 3}."""
    card: dict[str, Any] | None = None
    """How a file of this project describes itself."""
    config: dict[str, Any] = field(default_factory=dict)
    """config.json beside the weights."""
    preprocessor: dict[str, Any] = field(default_factory=dict)
    """preprocessor_config.json beside the weights."""


class StandIn:
    """Takes the place of an object that weights are not made of; it keeps nothing."""

    def __new__(cls, *arguments: object) -> "StandIn":
        return object.__new__(cls)

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


STAND_INS: list[Any] = [
    (OrderedDict, "yacs.config.CfgNode"),  # the configuration in files of the official code
    *(
        (StandIn, name)
        for name in (
            "argparse.Namespace",  # in timm's and torchvision's training checkpoints
            "pathlib.PosixPath",
            "numpy.dtype",  # accuracies kept as numpy numbers
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
        )
    ),
]


def find_file(given: str) -> Path:
    """The file meant by a path: of a run directory its best checkpoint, else the last; of a folder of weights, the folder.

    Raises:
        UserError: there is none.
    """
    path = Path(given).expanduser().absolute()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{given}: there is no such file or folder")
    for name in ("best.ckpt", "last.ckpt"):
        for folder in (path / "checkpoints", path):
            if (folder / name).is_file():
                return folder / name
    if _weights_of_folder(path):
        return path
    raise UserError(
        f"{given}: the folder holds no checkpoints/best.ckpt or checkpoints/last.ckpt (is it a run directory?), and no "
        f"{' or '.join(TRANSFORMERS_FILES)} (a downloaded model)"
    )


def read(path: Path) -> Contents:
    """What `find_file` has found, on the CPU.

    Raises:
        UserError: the file is empty, damaged, of another kind, or holds code.
    """
    if not path.is_dir():
        tree, card = _read_file(path)
        return Contents(path, tree, card, _json_beside(path, "config.json"), _json_beside(path, "preprocessor_config.json"))
    tree, card = {}, None
    files = _weights_of_folder(path)
    if not files:
        raise UserError(f"{path} is a folder without {' or '.join(TRANSFORMERS_FILES)}")
    for file in files:
        part, card = _read_file(file)
        tree |= part
    return Contents(path, tree, card, _json(path / "config.json"), _json(path / "preprocessor_config.json"))


def _weights_of_folder(folder: Path) -> list[Path]:
    """The weight files of a transformers folder; those that an index lists, if the weights are in several."""
    for name in TRANSFORMERS_FILES:
        if (folder / name).is_file():
            return [folder / name]
        listed = _json(folder / f"{name}.index.json").get("weight_map")
        if isinstance(listed, dict):
            files = [folder / part for part in sorted(set(map(str, listed.values())))]
            for file in files:
                if not file.is_file() or file.parent != folder:
                    raise UserError(f"{folder}: {name}.index.json lists {file.name}, which is not there; download it as well")
            return files
    return []


def _json_beside(file: Path, name: str) -> dict[str, Any]:
    """Of a file with the name that hubs give to weights; others may lie beside anything."""
    return _json(file.parent / name) if file.name in TRANSFORMERS_FILES else {}


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except ValueError as error:  # no JSON, or no text at all
        raise UserError(f"{file} is damaged: {error}") from error
    return content if isinstance(content, dict) else {}


def _read_file(file: Path) -> tuple[dict[Any, Any], dict[str, Any] | None]:
    try:
        with file.open("rb") as opened:
            start = opened.read(16)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    if not start:
        raise UserError(f"{file} is empty; the copy or the disk it came from may have been full")
    if start.startswith(b"version https:"):
        raise UserError(f"{file} is a pointer of git-lfs, not the weights themselves; run 'git lfs pull' where it came from")
    if start.lstrip()[:1] == b"<":
        raise UserError(f"{file} is a web page, not weights; download the file itself (on the hub: 'resolve', not 'blob')")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    content = _read_torch(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} holds {_named(content)}, not tensors by name")
    card = content.get(CARD)
    return content, card if isinstance(card, dict) else None


def _read_safetensors(file: Path) -> tuple[dict[Any, Any], dict[str, Any] | None]:
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        tensors: dict[Any, Any] = safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{file} is damaged or no safetensors file: {error}") from error
    try:
        card = json.loads(metadata[CARD]) if CARD in metadata else None
    except ValueError as error:
        raise UserError(f"{file} is damaged: its description of the model is no JSON") from error
    return tensors, card if isinstance(card, dict) else None


def _read_torch(file: Path) -> Any:
    try:
        with safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickle protocols: what cannot be read is an error anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(_refusal(file, str(error))) from error
    except Exception as error:  # torch's readers raise errors of any kind for bytes that are no checkpoint
        what = (str(error) or type(error).__name__).splitlines()[0]
        if "TorchScript" in str(error) or "torch.jit" in str(error):
            raise UserError(f"{file} is a TorchScript archive, which holds code; save its state_dict() instead") from error
        raise UserError(f"{file} cannot be read, it is damaged or no checkpoint: {what}") from error


def _refusal(file: Path, reason: str) -> str:
    """Names the classes and functions that a pickle asks for."""
    allowed = {name for _, name in STAND_INS}
    try:
        asked = [name for name in get_unsafe_globals_in_checkpoint(file) if name not in allowed]
    except Exception:  # not the zip format: what torch's reader has stumbled over is all that is known
        asked = re.findall(r"GLOBAL (\S+)", reason)[:1]
    if not asked:
        return f"{file} cannot be read, it is damaged or no checkpoint"
    return (
        f"{file} is not loaded: besides tensors it holds objects that would run code ({', '.join(sorted(asked)[:5])}).\n"
        "If you trust its origin, save the weights alone where it came from: torch.save(model.state_dict(), FILE)"
    )


def _named(content: object) -> str:
    kind = type(content).__name__
    return f"a {kind} of {len(content)} entries" if isinstance(content, list | tuple) else f"a {kind}"
