"""Detects what a file contains: where its tensors are, which layout names them, and which network they form."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.weights.layouts import DERIVED, LAYOUTS, Layout
from swin_lab.weights.packing import Tensors
from swin_lab.weights.values import same_values, why_not_plain

RAW = ("state_dict", "model", "model_state_dict", "net", "network", "module")
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
"""Keys of the weights in checkpoints, and of their moving average."""

WRAPPERS = ("model", "net", "network", "module", "encoder", "backbone")
"""Prefixes that training scripts add to every name; `encoder` is that of SimMIM."""

COMPILED = "_orig_mod"
"""Part of every name in a network that torch.compile has wrapped."""

MAX_TENSORS = 8000
MAX_NAME = 500
"""Limits of a file: with more names, detection would take minutes. The largest published network has 1,100."""

OUTSIDE_NETWORK = re.compile(r"(^|\.)(mask_token$|decoder\.|adapters\.|n_averaged$|num_batches_tracked$)")
"""Names of tensors that are left out: parts of SimMIM's pre-training, adapters of a distillation, and counters."""


@dataclass(frozen=True)
class DetectedLayout:
    """Contains the layout of a file, and its tensors under native names."""

    layout: Layout
    wrapper: str
    """Prefix of all names in the file."""
    tensors: Tensors
    derived: Tensors
    """Tensors that follow from the geometry; they determine the window of a V2 file."""
    left_out: list[str]
    """Names in the file of tensors that do not belong to the network."""
    unknown: list[str]
    """Names in the file that no layout has."""
    duplicates: list[tuple[str, str]]
    """Pairs of names in the file that stand for the same tensor and have different values."""

    @property
    def version(self) -> int:
        """Returns 1 for Swin Transformer, 2 for Swin Transformer V2."""
        return 2 if any(name.endswith((".attn.logit_scale", ".attn.cpb_mlp.0.weight")) for name in self.tensors) else 1

    @property
    def token_mixer(self) -> str:
        """Returns "mlp" for Swin-MLP, "attention" for all others."""
        return "mlp" if any(name.endswith(".attn.weight") for name in self.tensors) else "attention"


def find_tensors(state: dict[Any, Any], ema: bool) -> tuple[Tensors, str, bool]:
    """Finds the weights in the contents of a file.

    Args:
        state: the contents of the file.
        ema: whether to take the moving average of the weights.

    Returns:
        The tensors, their key in the file ("" at the top level), and whether the file also contains the other of the two.

    Raises:
        UserError: there are no tensors, or no moving average.
    """
    averaged = next((key for key in AVERAGED if _tensors_in(state.get(key))), None)
    raw = next((key for key in RAW if _tensors_in(state.get(key))), None)
    rivals: tuple[str, ...] = AVERAGED if ema else ("", *RAW)
    if "current_model_state" in state and raw is not None:  # Lightning's EMA callback: state_dict is the average
        averaged, raw = raw, "current_model_state"
        rivals = ()
    if ema and averaged is None:
        raise UserError("ema=true: the file contains no EMA weights; set ema=false")
    key = averaged if ema else raw
    if key is not None:
        return _chosen(state, key, rivals), key, averaged is not None and raw is not None
    if averaged is not None and not _tensors_in(state):
        return _chosen(state, averaged, AVERAGED), averaged, False
    if not _tensors_in(state):
        entries = ", ".join(sorted(key if isinstance(key, str) else f"a {type(key).__name__}" for key in state)[:10])
        raise UserError("the file contains no tensors by name" + (f", but {entries}" if entries else "; it is empty"))
    return _chosen(state, "", ()), "", False


def _chosen(state: dict[Any, Any], key: str, rivals: Sequence[str]) -> Tensors:
    """Returns the tensors under a key, after a check that they are ordinary ones and those of no other key contradict them.

    Raises:
        UserError: a name or a tensor is none that a network can have, or another key has different values for the same name.
    """
    tensors = _tensors_in(state[key] if key else state)
    if len(tensors) > MAX_TENSORS:
        raise UserError(f"the file contains {len(tensors)} tensors; a Swin Transformer has {MAX_TENSORS} at most")
    for name, tensor in tensors.items():
        if len(name) > MAX_NAME or not name.isprintable():
            raise UserError(f"the name of a tensor is damaged: {name[:100]!r}")
        if why := why_not_plain(tensor):
            raise UserError(f"{name} {why}")
    ours = {bare_name(name): tensor for name, tensor in tensors.items()}
    for rival in rivals:
        others = {} if rival == key else _tensors_in(state.get(rival)) if rival else _direct_tensors(state)
        for name, tensor in others.items():
            if bare_name(name) in ours and not same_values(tensor, ours[bare_name(name)]):
                where = f"under {rival!r}" if rival else "beside it"
                raise UserError(
                    f"the file contains two different tensors {name}: under {key!r} and {where}; save only one of them"
                )
    return tensors


def bare_name(name: str) -> str:
    """Returns a name without the prefixes that training scripts and torch.compile add."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in (*WRAPPERS, COMPILED):
        parts = parts[1:]
    return ".".join(part for part in parts if part != COMPILED)


def _direct_tensors(value: dict[Any, Any]) -> Tensors:
    return {key: entry for key, entry in value.items() if isinstance(key, str) and isinstance(entry, Tensor)}


def _tensors_in(value: object) -> Tensors:
    """Returns the tensors of a dict, which may be wrapped once more; empty if there are none."""
    if not isinstance(value, dict):
        return {}
    inner = (value.get(key) for key in RAW)
    return _direct_tensors(value) or next((_direct_tensors(entry) for entry in inner if isinstance(entry, dict)), {})


def detect_layout(tensors: Tensors) -> DetectedLayout:
    """Tries every layout, with and without wrapper and root, and returns the one that explains most tensors.

    Raises:
        UserError: no layout explains at least half of them.
    """
    plain: dict[str, str] = {}
    for name in tensors:
        other = plain.setdefault(name.replace(f"{COMPILED}.", ""), name)
        if not same_values(tensors[name], tensors[other]):
            raise UserError(_ambiguous(other, name))
    attempts = [
        _attempt({name: tensors[full] for name, full in plain.items()}, layout, wrapper, with_root)
        for layout in LAYOUTS
        for wrapper in _wrappers(list(plain))
        for with_root in ((True, False) if layout.root else (True,))
    ]
    best = min(attempts, key=_problems)
    if best.duplicates:
        raise UserError(_ambiguous(*best.duplicates[0]))
    if len(best.tensors) < max(1, len(tensors) // 2):
        shown = ", ".join(list(tensors)[:10])
        raise UserError(f"these are not weights of a Swin Transformer in a known layout: {len(tensors)} tensors named {shown}")
    return best


def _ambiguous(first: str, second: str) -> str:
    return f"two tensors have the same meaning and different values: {first} and {second}"


def _wrappers(names: list[str]) -> list[str]:
    """Returns prefixes that a training script may have added: those of a quarter of the names at least."""
    found: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for length in (1, 2, 3):
            if len(parts) > length and all(part in WRAPPERS for part in parts[:length]):
                found[".".join(parts[:length]) + "."] += 1
    return ["", *sorted(prefix for prefix, count in found.items() if 4 * count >= len(names))]


def _attempt(tensors: Tensors, layout: Layout, wrapper: str, with_root: bool) -> DetectedLayout:
    """Tries to read tensors in a layout."""
    renamed: Tensors = {}
    origin: dict[str, str] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    duplicates: list[tuple[str, str]] = []
    for full, tensor in tensors.items():
        name = full.removeprefix(wrapper)
        native = layout.to_native(name, with_root) if full.startswith(wrapper) else None
        if native is None:
            outside = not full.startswith(wrapper) and layout.to_native(full) is None and layout.to_native(full, False) is None
            (left_out if outside or OUTSIDE_NETWORK.search(full) else unknown).append(full)
        elif native in renamed and same_values(tensor, renamed[native]):
            continue
        elif native in renamed:
            duplicates.append((origin[native], full))
        else:
            renamed[native], origin[native] = tensor, full
    unpacked = layout.read(renamed)
    derived = {name: tensor for name, tensor in unpacked.items() if name.endswith(DERIVED)}
    own = {name: tensor for name, tensor in unpacked.items() if name not in derived}
    return DetectedLayout(layout, wrapper, own, derived, left_out, unknown, duplicates)


def _problems(attempt: DetectedLayout) -> tuple[int, int]:
    """Returns the number of problems of a layout, and minus the number of tensors that it explains, for comparison."""
    stages = {int(name.split(".")[1]) for name in attempt.tensors if name.startswith("stages.") and ".blocks." in name}
    merges = {int(name.split(".")[1]) for name in attempt.tensors if name.startswith("stages.") and ".merge." in name}
    misplaced = merges ^ (stages - {min(stages, default=0)})
    other_version = attempt.version not in attempt.layout.versions
    half_packed = sum(bool(re.search(r"\.attn\.[qkv]\.", name)) for name in attempt.tensors)
    outside = sum(not OUTSIDE_NETWORK.search(name) for name in attempt.left_out)
    problems = len(attempt.unknown) + outside + 3 * len(misplaced) + half_packed + 10 * other_version + len(attempt.duplicates)
    return problems, -len(attempt.tensors)


def read_architecture(detected: DetectedLayout) -> dict[str, Any]:
    """Returns the fields of `SwinConfig` that the tensors determine.

    For every stage, `window_size` has an entry [rows, columns], or None if no tensor determines it;
    `pretrained_window_sizes` has the same for the windows that the offsets of a V2 file were scaled to.

    Raises:
        UserError: the tensors do not form a network.
    """
    tensors = detected.tensors
    stem = tensors.get("embed.proj.weight")
    if stem is None or stem.ndim != 4 or stem.numel() == 0:
        raise UserError(f"the file has no patch embedding; its first tensors are {', '.join(list(tensors)[:10])}")
    depths = _depths(tensors)
    stages = range(len(depths))
    version = detected.version
    head = tensors.get("head.weight")
    is_mlp = detected.token_mixer == "mlp"
    biases = (name.endswith((".attn.qkv.bias", ".attn.q_bias")) for name in tensors)
    hidden = _first(tensors, 0, "mlp.fc1.weight")
    per_head = "attn.weight" if is_mlp else "attn.logit_scale" if version == 2 else "attn.relative_position_bias_table"
    heads = [_heads(_first(tensors, i, per_head), per_head) for i in stages]
    if hidden is None or hidden.ndim != 2 or None in heads:
        raise UserError(
            f"the file has no tensors that determine the size of the network: mlp.fc1.weight, or {per_head} of a stage"
        )
    return {
        "version": version,
        "token_mixer": detected.token_mixer,
        "patch_size": stem.shape[-1],
        "in_channels": stem.shape[1],
        "num_classes": head.shape[0] if head is not None and head.ndim == 2 else 0,
        "embed_dim": stem.shape[0],
        "depths": depths,
        "num_heads": heads,
        "window_size": [_window(detected, i) for i in stages],
        "pretrained_window_sizes": [_pretrained_window(detected, i) for i in stages],
        "mlp_ratio": hidden.shape[0] / stem.shape[0],
        "qkv_bias": is_mlp or any(biases),
    }


def _depths(tensors: Tensors) -> list[int]:
    """Returns the number of blocks per stage, by the largest index."""
    highest: dict[int, int] = {}
    for name in tensors:
        found = re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name)
        if found:
            highest[int(found[1])] = max(highest.get(int(found[1]), 0), int(found[2]) + 1)
    if sorted(highest) != list(range(len(highest))) or not highest or max(highest.values()) > 1000:
        raise UserError(
            f"the file contains blocks of stages {sorted(highest)}; stages must be numbered from 0 and have 1000 blocks at most"
        )
    return [highest[i] for i in sorted(highest)]


def _of_stage(tensors: Tensors, stage: int, end: str) -> Iterator[Tensor]:
    """Yields a stage's tensors whose names have that end."""
    for name, tensor in tensors.items():
        if name.startswith(f"stages.{stage}.blocks.") and name.endswith(f".{end}"):
            yield tensor


def _first(tensors: Tensors, stage: int, end: str) -> Tensor | None:
    """Returns the first of a stage's tensors whose names have that end."""
    return next(_of_stage(tensors, stage, end), None)


def _heads(tensor: Tensor | None, name: str) -> int | None:
    """Returns the number of heads by the shape of a tensor; None if there is no such tensor, or it has another form."""
    if tensor is None or tensor.ndim == 0:
        return None
    if name == "attn.weight":  # (heads x tokens, tokens, 1)
        return tensor.shape[0] // tensor.shape[1] if tensor.ndim == 3 and tensor.shape[1] > 0 else None
    return tensor.shape[-1] if name == "attn.relative_position_bias_table" else tensor.shape[0]


def _window(detected: DetectedLayout, stage: int) -> list[int] | None:
    """Reads a window from the offsets or the index that some files contain, else from the tensors of a square window: the bias
    table, or the weights of Swin-MLP.
    """
    weight = _first(detected.tensors, stage, "attn.weight")
    if weight is not None and weight.ndim == 3:
        side = isqrt(weight.shape[1])
        return [side, side] if side * side == weight.shape[1] else None
    offsets = _first(detected.derived, stage, "attn.relative_coords_table")
    if offsets is not None and offsets.ndim == 4:
        return [(offsets.shape[1] + 1) // 2, (offsets.shape[2] + 1) // 2]
    index = _first(detected.derived, stage, "attn.relative_position_index")
    from_index = _window_of_index(index) if index is not None and index.numel() > 0 else None
    table = _first(detected.tensors, stage, "attn.relative_position_bias_table")
    if table is None or table.ndim != 2:
        return from_index
    if from_index is not None and (2 * from_index[0] - 1) * (2 * from_index[1] - 1) == len(table):
        return from_index
    side = isqrt(len(table))
    return [(side + 1) // 2] * 2 if side * side == len(table) and side % 2 == 1 else None


def _window_of_index(index: Tensor) -> list[int] | None:
    """Reads a window from its index: its first row of tokens ends where the index no longer decreases by one per token."""
    tokens = isqrt(index.numel())
    if tokens * tokens != index.numel():
        return None
    first = index.reshape(tokens, tokens)[0]
    falls = (first[:1] - first) != torch.arange(tokens)
    columns = int(falls.int().argmax()) if bool(falls.any()) else tokens
    return [tokens // columns, columns] if columns and tokens % columns == 0 else None


def _pretrained_window(detected: DetectedLayout, stage: int) -> list[int] | None:
    """Reads the pretrained window of V2.

    The largest offset is sign(x) log2(1 + |x|) / 3 of x = 8 (window - 1) / (pretrained window - 1).
    """
    offsets = _first(detected.derived, stage, "attn.relative_coords_table")
    window = _window(detected, stage)
    if offsets is None or window is None or offsets.ndim != 4:
        return None
    farthest = offsets[0, -1, -1].double()
    scaled = (2 ** (3 * farthest) - 1) / 8
    if not bool((scaled > 0).all()) or not bool(scaled.isfinite().all()):
        return window
    return [round((side - 1) / float(part)) + 1 for side, part in zip(window, scaled, strict=True)]
