"""Reads weight files of any origin without running code from them.

A torch file is a pickle. torch's restricted reader (`weights_only=True`) reads tensors and plain Python from it; classes on a
short list, which published files contain besides their weights, are replaced by an inert class. Other classes are refused.
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
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from swin_lab.errors import UserError
from swin_lab.metadata import EMA_KEY, METADATA_KEY, NETWORK_PREFIX, Metadata

TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class Contents:
    """Contains what was read from a weight file, or from a folder of transformers or timm."""

    file: Path
    state: dict[Any, Any]
    """Tensors by name, possibly nested: {"model": {...}, "epoch": 3}."""
    metadata: Metadata | None = None
    """The metadata of a native file. If None, the file is of another origin."""
    config: dict[str, Any] = field(default_factory=dict)
    """The contents of the sidecar file config.json."""
    preprocessor: dict[str, Any] = field(default_factory=dict)
    """The contents of the sidecar file preprocessor_config.json."""
    source: str = ""
    """The source as the user gave it, for messages. If it is empty, messages name the file."""

    @property
    def label(self) -> str:
        """Returns the name of the source for messages."""
        return self.source or str(self.file)

    def network_tensors(self, ema: bool = False) -> dict[str, Tensor]:
        """Returns the network's tensors in the checkpoint of a run, without the prefix of their names.

        Args:
            ema: whether to return the moving average of the weights.

        Raises:
            UserError: the file is not the checkpoint of a run, or contains no moving average.
        """
        if ema and EMA_KEY not in self.state:
            raise UserError(f"{self.file} contains no EMA weights; set transfer.ema=false")
        state_dict = self.state.get(EMA_KEY if ema else "state_dict")
        entries = state_dict if isinstance(state_dict, dict) else {}
        tensors = {
            name.removeprefix(NETWORK_PREFIX): tensor
            for name, tensor in entries.items()
            if isinstance(name, str) and name.startswith(NETWORK_PREFIX) and isinstance(tensor, Tensor)
        }
        if not tensors:
            raise UserError(
                f"{self.file} is not the checkpoint of a run: its state_dict contains no tensors named {NETWORK_PREFIX}*"
            )
        return tensors


class StandIn:
    """Replaces an object that is not part of the weights; it stores nothing."""

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
            "numpy.dtype",  # accuracies stored as numpy scalars
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
        )
    ),
]


def find_file(given: str) -> Path:
    """Returns the file of weights at a path: the best checkpoint of a run directory, else the last; a folder of weights itself.

    Raises:
        UserError: the path does not exist or contains no weights.
    """
    path = Path(given).expanduser().absolute()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{given} does not exist")
    for name in ("best.ckpt", "last.ckpt"):
        for folder in (path / "checkpoints", path):
            if (folder / name).is_file():
                return folder / name
    if _weights_of_folder(path):
        return path
    raise UserError(
        f"{given}: the folder contains no checkpoints/best.ckpt or checkpoints/last.ckpt (is it a run directory?), and no "
        f"{' or '.join(TRANSFORMERS_FILES)} (a downloaded model)"
    )


def read(path: Path, source: str = "") -> Contents:
    """Reads what `find_file` has found, with tensors on the CPU.

    Args:
        path: a file or a folder.
        source: the source as the user gave it, for messages.

    Raises:
        UserError: the file is empty, damaged, of another kind, or contains code.
    """
    files = _weights_of_folder(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} is a folder without {' or '.join(TRANSFORMERS_FILES)}")
    state: dict[Any, Any] = {}
    metadata = None
    for file in files:
        part, metadata = _read_file(file)
        state |= part
    has_sidecars = files[0].name in TRANSFORMERS_FILES or path.is_dir()  # Other weight files may be next to unrelated files.
    folder = files[0].parent
    config, preprocessor = (
        _json(folder / name) if has_sidecars else {} for name in ("config.json", "preprocessor_config.json")
    )
    return Contents(path, state, metadata, config, preprocessor, source)


def _weights_of_folder(folder: Path) -> list[Path]:
    """Returns the weight files of a transformers folder; those that an index lists, if the weights are in several."""
    for name in TRANSFORMERS_FILES:
        if (folder / name).is_file():
            return [folder / name]
        listed = _json(folder / f"{name}.index.json").get("weight_map")
        if isinstance(listed, dict):
            files = [folder / part for part in sorted(set(map(str, listed.values())))]
            for file in files:
                if not file.is_file() or file.parent != folder:
                    raise UserError(f"{folder}: {name}.index.json lists {file.name}, which does not exist; download it as well")
            return files
    return []


def _json(file: Path) -> dict[str, Any]:
    """Returns the object in a JSON file, or {} if it does not exist or contains another value."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except ValueError as error:  # The file is not JSON, or not text at all.
        raise UserError(f"{file} is damaged: {error}") from error
    return content if isinstance(content, dict) else {}


def _read_file(file: Path) -> tuple[dict[Any, Any], Metadata | None]:
    """Reads the raw contents and the metadata of one file."""
    try:
        with file.open("rb") as opened:
            start = opened.read(16)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    if not start:
        raise UserError(f"{file} is empty; the disk may have been full when it was copied")
    if start.startswith(b"version https:"):
        raise UserError(
            f"{file} is a pointer of git-lfs, not the weights themselves; run 'git lfs pull' in the repository it came from"
        )
    if start.lstrip()[:1] == b"<":
        raise UserError(f"{file} is a web page, not weights; download the file itself (on the hub: 'resolve', not 'blob')")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    content = _read_torch(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} contains {_named(content)}, not tensors by name")
    return content, Metadata.from_dict(content[METADATA_KEY], str(file)) if METADATA_KEY in content else None


def _read_safetensors(file: Path) -> tuple[dict[Any, Any], Metadata | None]:
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            entries = opened.metadata() or {}
            tensors: dict[Any, Any] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{file} is damaged or not a safetensors file: {error}") from error
    if METADATA_KEY not in entries:
        return tensors, None
    try:
        values = json.loads(entries[METADATA_KEY])
    except ValueError as error:
        raise UserError(f"{file} is damaged: its metadata is not JSON") from error
    return tensors, Metadata.from_dict(values, str(file))


def _read_torch(file: Path) -> Any:
    try:
        with safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Unusual pickle protocols give warnings; what cannot be read is an error anyway.
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(_refusal(file, str(error))) from error
    except Exception as error:  # torch's readers raise errors of any class for bytes that are not a checkpoint.
        what = (str(error) or type(error).__name__).splitlines()[0]
        if "TorchScript" in str(error) or "torch.jit" in str(error):
            raise UserError(f"{file} is a TorchScript archive, which contains code; save its state_dict() instead") from error
        raise UserError(f"{file} cannot be read, it is damaged or not a checkpoint: {what}") from error


def _refusal(file: Path, reason: str) -> str:
    """Returns a message with the classes and functions that a pickle refers to."""
    allowed = {name for _, name in STAND_INS}
    try:
        refused = [name for name in get_unsafe_globals_in_checkpoint(file) if name not in allowed]
    except Exception:  # The file is not in the zip format: only the class in the error is known.
        refused = re.findall(r"GLOBAL (\S+)", reason)[:1]
    if not refused:
        return f"{file} cannot be read, it is damaged or not a checkpoint"
    return (
        f"{file} is not loaded: besides tensors it contains objects that would run code ({', '.join(sorted(refused)[:5])}).\n"
        "If you trust its origin, save only the weights, in the program that wrote it: torch.save(model.state_dict(), FILE)"
    )


def _named(content: object) -> str:
    kind = type(content).__name__
    return f"a {kind} of {len(content)} entries" if isinstance(content, list | tuple) else f"a {kind}"
