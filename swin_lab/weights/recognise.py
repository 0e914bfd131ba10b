"""Finding out what a file holds: where its tensors are, whose names they have, and which network they make."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.weights.layouts import DERIVED, LAYOUTS, Layout
from swin_lab.weights.packing import Tensors

RAW = ("state_dict", "model", "model_state_dict", "net", "network", "module")
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
"""Keys under which checkpoints keep the weights, and their moving average."""

WRAPPERS = ("model", "net", "network", "module", "encoder", "backbone")
"""What training scripts put in front of every name; `encoder` is SimMIM's."""

NO_NETWORK = re.compile(r"(^|\.)(mask_token$|decoder\.|n_averaged$|num_batches_tracked$)")
"""Left out: parts of SimMIM's pre-training, and counters."""


@dataclass(frozen=True)
class Recognised:
    """The tensors of a file under our names."""

    layout: Layout
    wrapper: str
    """What stood in front of their names."""
    tensors: Tensors
    derived: Tensors
    """Those that follow from the geometry; they tell the window of a V2 file."""
    left_out: list[str]
    """Their names for what belongs to no network on purpose."""
    unknown: list[str]
    """Their names for what nobody knows."""
    twice: list[tuple[str, str]]
    """Pairs of their names that mean one of ours."""

    @property
    def version(self) -> int:
        return 2 if any(name.endswith((".attn.logit_scale", ".attn.cpb_mlp.0.weight")) for name in self.tensors) else 1


def find_tensors(tree: dict[Any, Any], ema: bool) -> tuple[Tensors, str, bool]:
    """The weights inside what a file holds.

    Args:
        tree: what the file holds.
        ema: whether the moving average is wanted.

    Returns:
        The tensors, the key they were under ("" for none), and whether the file also holds the other of the two.

    Raises:
        UserError: there are none.
    """
    averaged = next((key for key in AVERAGED if _tensors_in(tree.get(key))), None)
    raw = next((key for key in RAW if _tensors_in(tree.get(key))), None)
    if "current_model_state" in tree and raw is not None:  # Lightning's averaging callback: state_dict is the average
        averaged, raw = raw, "current_model_state"
    if ema and averaged is None:
        raise UserError("ema=true: the file holds no moving average of the weights; leave it out")
    key = averaged if ema else raw
    if key is not None:
        return _tensors_in(tree[key]), key, averaged is not None and raw is not None
    if averaged is not None and not _tensors_in(tree):
        return _tensors_in(tree[averaged]), averaged, False
    direct = _tensors_in(tree)
    if not direct:
        held = ", ".join(sorted(map(str, tree))[:10]) or "nothing"
        raise UserError(f"the file holds no tensors by name, but {held}")
    return direct, "", False


def _tensors_in(value: object) -> Tensors:
    """The tensors of a dict, which may be wrapped once more; empty if there are none."""
    if not isinstance(value, dict):
        return {}
    found = {str(key): entry for key, entry in value.items() if isinstance(entry, Tensor)}
    if not found:
        for key in RAW:
            inner = value.get(key)
            if isinstance(inner, dict):
                return {str(name): entry for name, entry in inner.items() if isinstance(entry, Tensor)}
    return found


def recognise(tensors: Tensors) -> Recognised:
    """Tries every layout, with and without wrapper and root, and takes the one that explains most.

    Raises:
        UserError: none does.
    """
    plain = {name.replace("_orig_mod.", ""): name for name in tensors}  # torch.compile's
    attempts = [
        _attempt({name: tensors[full] for name, full in plain.items()}, layout, wrapper, with_root)
        for layout in LAYOUTS
        for wrapper in _wrappers(list(plain))
        for with_root in ((True, False) if layout.root else (True,))
    ]
    best = min(attempts, key=_problems)
    if len(best.tensors) < max(1, len(tensors) // 2):
        shown = ", ".join(list(tensors)[:10])
        raise UserError(
            f"these are no weights of a Swin Transformer in a layout that is known: {len(tensors)} tensors named {shown}"
        )
    return best


def _wrappers(names: list[str]) -> list[str]:
    """Beginnings of names that may have been put there by a training script."""
    found = {""}
    for name in names:
        parts = name.split(".")
        for length in (1, 2, 3):
            if len(parts) > length and all(part in WRAPPERS for part in parts[:length]):
                found.add(".".join(parts[:length]) + ".")
    return sorted(found)


def _attempt(tensors: Tensors, layout: Layout, wrapper: str, with_root: bool) -> Recognised:
    renamed: Tensors = {}
    origin: dict[str, str] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    twice: list[tuple[str, str]] = []
    for full, tensor in tensors.items():
        name = full.removeprefix(wrapper)
        ours = layout.to_ours(name, with_root) if full.startswith(wrapper) else None
        if ours is None:
            outside = not full.startswith(wrapper) and layout.to_ours(full) is None and layout.to_ours(full, False) is None
            (left_out if outside or NO_NETWORK.search(full) else unknown).append(full)
        elif ours in renamed:
            twice.append((origin[ours], full))
        else:
            renamed[ours], origin[ours] = tensor, full
    unpacked = layout.read(renamed)
    derived = {name: tensor for name, tensor in unpacked.items() if name.endswith(DERIVED)}
    own = {name: tensor for name, tensor in unpacked.items() if name not in derived}
    return Recognised(layout, wrapper, own, derived, left_out, unknown, twice)


def _problems(attempt: Recognised) -> tuple[int, int]:
    """What a layout fails to explain, and how much it leaves out."""
    stages = {int(name.split(".")[1]) for name in attempt.tensors if name.startswith("stages.") and ".blocks." in name}
    merges = {int(name.split(".")[1]) for name in attempt.tensors if name.startswith("stages.") and ".merge." in name}
    misplaced = merges ^ (stages - {min(stages, default=0)})
    other_version = attempt.version not in attempt.layout.versions
    half_packed = sum(bool(re.search(r"\.attn\.[qkv]\.", name)) for name in attempt.tensors)
    outside = sum(not NO_NETWORK.search(name) for name in attempt.left_out)
    problems = len(attempt.unknown) + outside + 3 * len(misplaced) + half_packed + 10 * other_version + len(attempt.twice)
    return problems, -len(attempt.tensors)


def architecture(recognised: Recognised) -> dict[str, Any]:
    """The arguments of `SwinTransformer` as far as tensors tell them.

    `window_size` has an entry [rows, columns] or None, if nothing tells it, for every stage; likewise `trained_windows`
    with what the offsets of a V2 file were scaled to. `drop_path_rate` and what is no number of the network are not known.

    Raises:
        UserError: the tensors make no network.
    """
    tensors = recognised.tensors
    stem = tensors.get("embed.proj.weight")
    if stem is None or stem.ndim != 4 or stem.numel() == 0:
        raise UserError(f"the file has no patch embedding; its first tensors are {', '.join(list(tensors)[:10])}")
    depths = _depths(tensors)
    stages = range(len(depths))
    version = recognised.version
    head = tensors.get("head.weight")
    biases = (name.endswith((".attn.qkv.bias", ".attn.q_bias")) for name in tensors)
    hidden = _first(tensors, 0, "mlp.fc1.weight")
    heads = [_first(tensors, i, "attn.logit_scale" if version == 2 else "attn.relative_position_bias_table") for i in stages]
    if hidden is None or hidden.ndim != 2 or any(of_stage is None or of_stage.ndim == 0 for of_stage in heads):
        raise UserError("the file lacks tensors that tell the network's size: of some stage no head count, or no MLP at all")
    return {
        "version": version,
        "patch_size": stem.shape[-1],
        "in_channels": stem.shape[1],
        "num_classes": head.shape[0] if head is not None and head.ndim == 2 else 0,
        "embed_dim": stem.shape[0],
        "depths": depths,
        "num_heads": [of_stage.shape[0 if version == 2 else -1] for of_stage in heads if of_stage is not None],
        "window_size": [_window(recognised, i) for i in stages],
        "trained_windows": [_trained_window(recognised, i) for i in stages],
        "mlp_ratio": hidden.shape[0] / stem.shape[0],
        "qkv_bias": any(biases),
    }


def _depths(tensors: Tensors) -> list[int]:
    """Blocks per stage, by the highest number seen."""
    highest: dict[int, int] = {}
    for name in tensors:
        found = re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name)
        if found:
            highest[int(found[1])] = max(highest.get(int(found[1]), 0), int(found[2]) + 1)
    if sorted(highest) != list(range(len(highest))) or not highest or max(highest.values()) > 1000:
        raise UserError(f"the file holds blocks of stages {sorted(highest)}; a network has all from 0 on")
    return [highest[i] for i in sorted(highest)]


def _of_stage(tensors: Tensors, stage: int, end: str) -> Iterator[Tensor]:
    for name, tensor in tensors.items():
        if name.startswith(f"stages.{stage}.blocks.") and name.endswith(f".{end}"):
            yield tensor


def _first(tensors: Tensors, stage: int, end: str) -> Tensor | None:
    return next(_of_stage(tensors, stage, end), None)


def _window(recognised: Recognised, stage: int) -> list[int] | None:
    """From the table of offsets or the index that some files hold, else from the bias table, if it can be of a square only."""
    offsets = _first(recognised.derived, stage, "attn.relative_coords_table")
    if offsets is not None and offsets.ndim == 4:
        return [(offsets.shape[1] + 1) // 2, (offsets.shape[2] + 1) // 2]
    index = _first(recognised.derived, stage, "attn.relative_position_index")
    told = _window_of_index(index) if index is not None and index.numel() > 0 else None
    table = _first(recognised.tensors, stage, "attn.relative_position_bias_table")
    if table is None or table.ndim != 2:
        return told
    if told is not None and (2 * told[0] - 1) * (2 * told[1] - 1) == len(table):
        return told
    side = isqrt(len(table))
    return [(side + 1) // 2] * 2 if side * side == len(table) and side % 2 == 1 else None


def _window_of_index(index: Tensor) -> list[int] | None:
    """A window's first row of tokens is as long as the first row of the index falls by one from token to token."""
    tokens = isqrt(index.numel())
    if tokens * tokens != index.numel():
        return None
    first = index.reshape(tokens, tokens)[0]
    falls = (first[:1] - first) != torch.arange(tokens)
    columns = int(falls.int().argmax()) if bool(falls.any()) else tokens
    return [tokens // columns, columns] if columns and tokens % columns == 0 else None


def _trained_window(recognised: Recognised, stage: int) -> list[int] | None:
    """V2: the farthest offset is sign(x) log2(1 + |x|) / 3 of x = 8 (window - 1) / (trained window - 1)."""
    offsets = _first(recognised.derived, stage, "attn.relative_coords_table")
    window = _window(recognised, stage)
    if offsets is None or window is None or offsets.ndim != 4:
        return None
    farthest = offsets[0, -1, -1].double()
    scaled = (2 ** (3 * farthest) - 1) / 8
    if not bool((scaled > 0).all()) or not bool(scaled.isfinite().all()):
        return window
    return [round((side - 1) / float(part)) + 1 for side, part in zip(window, scaled, strict=True)]
