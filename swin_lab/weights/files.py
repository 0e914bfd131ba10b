"""Reads weight files of any origin without running code from them.

A torch file is a pickle. torch's restricted reader (`weights_only=True`) reads tensors and plain Python from it; classes on a
short list, which published files contain besides their weights, are replaced by an inert class. Other classes are refused.
"""

import json
import re
import warnings
from codecs import BOM_UTF8, getincrementaldecoder
from collections import OrderedDict
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from swin_lab.errors import UserError
from swin_lab.metadata import EMA_KEY, METADATA_KEY, NETWORK_PREFIX, Metadata
from swin_lab.models.lora import LoraConfig
from swin_lab.weights.adapters import add_adapters
from swin_lab.weights.archive import check_archive, check_expansion
from swin_lab.weights.pickles import check_pickle, plain, tensors_of
from swin_lab.weights.values import bytes_in_memory, same_values, why_not_plain

TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")
BEGINNING = 64
"""Number of bytes by which a file's kind is recognised."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""First bytes of the two formats of torch."""
MAX_JSON_BYTES = 2**22
"""Limit of a description in JSON, which takes up to 20 times as much memory; one with the names of 22k classes has 2 MB."""
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
    lora: LoraConfig | None = None
    """The settings of adapters that were added to the weights when they were read."""

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
        for name, tensor in tensors.items():
            if why := why_not_plain(tensor):
                raise UserError(f"{self.file}: {name} {why}")
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
    if not given:
        raise UserError("the path of the weights is empty; give a file, a run directory or a folder")
    try:
        path = Path(given).expanduser().absolute()
        if path.is_file():
            return path
        if not path.is_dir():
            raise UserError(f"{given} is not a file or folder" if path.exists() else f"{given} does not exist{_similar(path)}")
    except (OSError, RuntimeError) as error:  # The name is too long, the folder cannot be read, or ~USER is unknown.
        raise UserError(f"{given[:200]} cannot be read: {getattr(error, 'strerror', None) or error}") from error
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


def _similar(path: Path) -> str:
    """Returns the end of a message on a missing file: similar names in its folder, or that the folder is missing as well."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder}"
    near = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3)
    return f"; did you mean {' or '.join(str(folder / name) for name in near)}?" if near else ""


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
        part, described = _read_file(file)
        if metadata is not None and described is not None and described != metadata:
            raise UserError(f"{path}: its files describe different networks; {file.name} belongs to another model")
        metadata = described or metadata
        for name in state.keys() & part.keys():
            if not same_values(state[name], part[name]):
                raise UserError(f"{path}: two of its files contain different tensors {name}; download it again")
        state |= part
    # Metadata describes everything. Weight files of other names may be next to unrelated files.
    has_sidecars = metadata is None and (files[0].name in TRANSFORMERS_FILES or path.is_dir())
    folder = files[0].parent
    config, preprocessor = (
        _json(folder / name) if has_sidecars else {} for name in ("config.json", "preprocessor_config.json")
    )
    state, metadata, lora = add_adapters(source or str(path), state, metadata)
    return Contents(path, state, metadata, config, preprocessor, source, lora)


def _weights_of_folder(folder: Path) -> list[Path]:
    """Returns the weight files of a transformers folder; those that an index lists, if the weights are in several."""
    for name in TRANSFORMERS_FILES:
        if (folder / name).is_file():
            return [folder / name]
        listed = _json(folder / f"{name}.index.json").get("weight_map")
        if isinstance(listed, dict):
            files = [folder / part for part in sorted(set(map(str, listed.values())))]
            for file in files:
                _check_part(f"{folder}: {name}.index.json", folder, file)
            return files
    return []


def _check_part(where: str, folder: Path, file: Path) -> None:
    """Raises UserError unless a file that an index lists exists and is in the folder of the index."""
    if file.parent != folder or file.name in ("", ".."):
        raise UserError(f"{where} lists {str(file)[:200]}, which is outside the folder; download the model again")
    try:
        exists = file.is_file()
    except (OSError, ValueError):  # The name is too long, or none of a file.
        exists = False
    if not exists:
        raise UserError(f"{where} lists {file.name[:200]}, which does not exist; download it as well")


def _json(file: Path) -> dict[str, Any]:
    """Returns the object in a JSON file, or {} if it does not exist or contains another value."""
    if not file.is_file():
        return {}
    if file.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{file} has more than {MAX_JSON_BYTES:,} bytes; it is not the description of a model")
    try:
        content = json.loads(file.read_text())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    except (ValueError, RecursionError) as error:  # The file is not text, nested without end, or has an endless number.
        raise UserError(f"{file} is damaged: it is not the description of a model in JSON") from error
    return content if isinstance(content, dict) else {}


def _read_file(file: Path) -> tuple[dict[Any, Any], Metadata | None]:
    """Reads the raw contents and the metadata of one file."""
    try:
        with file.open("rb") as opened:
            start = opened.read(BEGINNING)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    if not start:
        raise UserError(f"{file} is empty; the disk may have been full when it was copied")
    if start.startswith(b"version https:"):
        raise UserError(
            f"{file} is a pointer of git-lfs, not the weights themselves; run 'git lfs pull' in the repository it came from"
        )
    if _is_text(start):
        what = "a web page" if start.removeprefix(BOM_UTF8).lstrip().startswith(b"<") else "text"
        raise UserError(f"{file} is {what}, not weights; download the file itself (on the hub: 'resolve', not 'blob')")
    if _is_safetensors(file, start):
        return _read_safetensors(file)
    if start.startswith(ZIP):
        check_archive(file)
    check_pickle(file, start.startswith(ZIP))
    content = _read_torch(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} contains {_named(content)}, not tensors by name")
    content = plain(content)
    check_expansion(file, sum(map(bytes_in_memory, tensors_of(content))))
    return content, Metadata.from_dict(content[METADATA_KEY], str(file)) if METADATA_KEY in content else None


def _is_text(start: bytes) -> bool:
    """Returns whether a file begins with printable text, which neither a pickle, a zip nor a safetensors file does."""
    try:
        text = getincrementaldecoder("utf-8")().decode(start)  # The last character may be cut off.
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\n\r\t\ufeff" for character in text)


def _is_safetensors(file: Path, start: bytes) -> bool:
    """Returns whether a file is named .safetensors, or begins with the length of a header in JSON, whatever its name is.

    Raises:
        UserError: it is named .safetensors and contains another format, which torch would not read under this name.
    """
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= file.stat().st_size:
        return True
    if file.suffix == ".safetensors" and start.startswith((ZIP, PICKLE)):
        raise UserError(f"{file} is a file of torch, not of safetensors; rename it to {file.stem}.pth")
    return file.suffix == ".safetensors"


def _read_safetensors(file: Path) -> tuple[dict[Any, Any], Metadata | None]:
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            entries = opened.metadata() or {}
            tensors: dict[Any, Any] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{file} is damaged or not a safetensors file: {error}") from error
    except (TypeError, AttributeError, RuntimeError, OverflowError) as error:  # for types and sizes that torch does not have
        raise UserError(f"{file} contains a tensor that torch cannot represent: {str(error).splitlines()[0]}") from error
    if METADATA_KEY not in entries:
        return tensors, None
    if len(entries[METADATA_KEY]) > MAX_JSON_BYTES:
        raise UserError(f"{file} is damaged: its metadata has more than {MAX_JSON_BYTES:,} characters")
    try:
        values = json.loads(entries[METADATA_KEY])
    except (ValueError, RecursionError) as error:
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
        if "TorchScript" in str(error) or "torch.jit" in str(error):
            raise UserError(f"{file} is a TorchScript archive, which contains code; save its state_dict() instead") from error
        # Only messages of torch itself are sentences; a KeyError, for example, contains a byte of the pickle.
        reason = f": {str(error).splitlines()[0]}" if isinstance(error, RuntimeError) and str(error) else ""
        raise UserError(f"{file} cannot be read, it is damaged or not a checkpoint{reason}") from error


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
