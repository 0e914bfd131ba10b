"""A file of weights, understood: which network it holds, under our names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from swin_lab.errors import UserError
from swin_lab.imagenet import ROWS_1K, ROWS_22K, wordnet_ids, words
from swin_lab.models import SwinTransformer, list_models, model_config
from swin_lab.models.shape import SwinShape, Windows
from swin_lab.weights.files import Contents, find_file, read
from swin_lab.weights.hub import fetch, is_hub_id
from swin_lab.weights.layouts import Layout
from swin_lab.weights.packing import Tensors
from swin_lab.weights.preprocessing import published_preprocessing
from swin_lab.weights.recognise import Recognised, architecture, find_tensors, recognise

NETWORK_CLASS = "swin_lab.models.SwinTransformer"

BODY = ("version", "patch_size", "embed_dim", "depths", "num_heads", "mlp_ratio", "qkv_bias")
"""Arguments of `SwinTransformer` that no transfer can change."""


SHOWN = 10
"""Names in a list of a message."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a Swin Transformer, and all that is known of them."""

    source: str
    """As it was given."""
    file: Path
    layout: Layout
    key: str
    """Under which the file keeps the weights; "" for none."""
    tensors: Tensors
    """By our names; with strict=false some may lack."""
    config: dict[str, Any]
    """Arguments of `SwinTransformer` that make this very network."""
    card: dict[str, Any]
    """class_names (or None) and preprocessing."""
    missing: list[str]
    misshapen: list[str]
    unusable: list[str]
    """Of the wrong type, or with values that are no numbers."""
    unexpected: list[str]
    derived: list[str]
    left_out: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> SwinShape:
        return _shape(self.config)

    @property
    def variants(self) -> list[str]:
        """Names of the variants that this network is."""
        return [name for name in list_models() if not _differences(self.config, name)]

    def origin(self) -> list[tuple[str, str]]:
        """Which file and which network: (what, in words)."""
        config, shape = self.config, self.shape
        windows = "-".join(side_by_side(window) for window in dict.fromkeys(shape.windows))
        depths, heads = ("-".join(map(str, numbers)) for numbers in (shape.depths, shape.num_heads))
        network = (
            f"Swin V{config['version']}, C={config['embed_dim']}, depths {depths}, heads {heads}, windows {windows}, "
            f"{side_by_side(shape.img_size)} pixels, {shape.num_classes} classes"
        )
        return [
            ("weights", f"{self.source}, layout {self.layout.label}" + (f", key {self.key}" if self.key else "")),
            ("network", network + (f" = {self.variants[0]}" if self.variants else "")),
        ]

    def asides(self) -> list[tuple[str, str]]:
        """What else there is to say of the file: (what, in words)."""
        derived = Counter(name.rpartition(".")[2] for name in self.derived)
        outside = ", ".join(dict.fromkeys(name.split(".")[0] for name in self.left_out))
        lines = [
            ("ignored", ", ".join(f"{count} {name}" for name, count in derived.items()) + " (derived)" * bool(derived)),
            ("left out", f"{len(self.left_out)} tensors outside the network ({outside})" if outside else ""),
            ("unused", listed(self.unexpected + self.misshapen)),
            ("warning", listed(self.unusable)),
            *(("note", note) for note in self.notes),
        ]
        return [(label, text) for label, text in lines if text]

    def lines(self) -> list[tuple[str, str]]:
        """All that is known of the file: (what, in words)."""
        names, prepared = self.card.get("class_names"), self.card.get("preprocessing")
        trained = self.shape.trained_windows != self.shape.windows
        numbers = sum(tensor.numel() for tensor in self.tensors.values())
        lines = [
            ("tensors", f"{len(self.tensors)} of the network, {numbers:,} numbers"),
            ("trained", "with windows " + "-".join(map(side_by_side, self.shape.trained_windows)) if trained else ""),
            ("lacks", listed(self.missing)),
            ("classes", listed(names) if names else "not named" if self.shape.num_classes else "none: no head"),
            ("images", ", ".join(f"{key} {_short(value)}" for key, value in prepared.items()) if prepared else ""),
        ]
        return [*self.origin(), *((label, text) for label, text in lines if text), *self.asides()]


def open_checkpoint(
    source: str | Path,
    *,
    name: str | None = None,
    img_size: Any = None,
    window_size: Windows | None = None,
    ema: bool = False,
) -> Checkpoint:
    """Reads a file, a run directory, a folder of transformers or timm, or a model of the hub.

    Args:
        source: its path, or OWNER/NAME on the hub.
        name: the variant it must be; needed for V2 files that do not tell their windows.
        img_size: pixels, where neither file nor name tell it.
        window_size: tokens, likewise.
        ema: whether the moving average of the weights is wanted.

    Raises:
        UserError: there is no such source, it is damaged, holds code, or holds no Swin Transformer.
    """
    given = str(source)
    if name is not None:
        model_config(name)  # raises for an unknown one
    contents = read(locate(given))
    try:
        return _understood(given, contents, name, img_size, window_size, ema)
    except UserError as error:
        raise UserError(f"{given}: {error}") from error


def locate(given: str) -> Path:
    """The file or folder that is meant by a path, or by the id of a model on the hub, which is then fetched.

    Raises:
        UserError: there is none.
    """
    if is_hub_id(given):
        return fetch(given)
    if given in list_models() and not Path(given).exists():
        raise UserError(
            f"{given} is the name of a model, not of a file; swin_lab.create_model makes one with random weights, "
            f"published ones are on the hub, for example timm/{given}.ms_in1k"
        )
    return find_file(given)


def _understood(
    given: str, contents: Contents, name: str | None, img_size: Any, window_size: Windows | None, ema: bool
) -> Checkpoint:
    tensors, key, other = find_tensors(contents.tree, ema)
    found = recognise(tensors)
    notes = ["the file also holds " + ("the raw weights" if ema else "a moving average of the weights: ema=true")] * other
    if found.twice:
        raise UserError(f"two tensors for one: {found.twice[0][0]} and {found.twice[0][1]}")
    if contents.card is not None and "model" in contents.card:
        config = _config_of_card(contents.card["model"])
        card = {key: contents.card.get(key) for key in ("class_names", "preprocessing")}
    else:
        config = _config_of_tensors(found, contents.config, name, img_size, window_size, notes)
        card = {
            "class_names": _class_names(contents.config.get("id2label"), config["num_classes"], notes),
            "preprocessing": published_preprocessing(found.layout.name, config, contents.config, contents.preprocessor),
        }
    if name is not None and (differences := _differences(config, name)):
        raise UserError(f"this is no {name}: {differences[0]}")
    with torch.device("meta"):
        expected = {key: tensor.shape for key, tensor in SwinTransformer(**config).state_dict().items()}
    held = found.tensors
    return Checkpoint(
        given,
        contents.file,
        found.layout,
        key,
        held,
        config,
        card,
        missing=[key for key in expected if key not in held],
        misshapen=[
            f"{key} is {tuple(tensor.shape)}, not {tuple(expected[key])}"
            for key, tensor in held.items()
            if key in expected and tensor.shape != expected[key]
        ],
        unusable=[f"{key} {why}" for key, tensor in held.items() if (why := _why_unusable(tensor))],
        unexpected=found.unknown + [key for key in held if key not in expected],
        derived=list(found.derived),
        left_out=found.left_out,
        notes=notes + _type_notes(held),
    )


def _config_of_card(model: Any) -> dict[str, Any]:
    """Of a file of ours."""
    if not isinstance(model, dict) or model.get("_target_") != NETWORK_CLASS:
        what = model.get("_target_") if isinstance(model, dict) else type(model).__name__
        raise UserError(f"it holds a {what}, not a {NETWORK_CLASS}")
    try:
        with torch.device("meta"):
            return SwinTransformer(**{str(key): value for key, value in model.items() if key != "_target_"}).config
    except TypeError as error:
        raise UserError(f"its description of the model is damaged: {error}") from error


def _config_of_tensors(
    found: Recognised,
    beside: dict[str, Any],
    name: str | None,
    img_size: Any,
    window_size: Windows | None,
    notes: list[str],
) -> dict[str, Any]:
    """Of a foreign file: tensors first, then what lies beside it or was given for what tensors do not tell."""
    read_off = architecture(found)
    windows, trained = read_off.pop("window_size"), read_off.pop("trained_windows")
    variant = name or _variant_beside(beside)
    told = model_config(variant) if variant is not None else _told_by_transformers(beside)
    if None not in windows:
        pixels = told.get("img_size") if told else None
        if pixels is None:
            pixels = _smallest_image(windows, read_off["patch_size"])
        chosen: Windows = windows
    elif window_size is not None and img_size is not None:
        chosen, pixels = window_size, img_size
    elif told:
        chosen, pixels = told["window_size"], told["img_size"]
    else:
        raise UserError(_unknown_windows(read_off))
    known = [window for window in trained if window is not None]
    pretrained: Windows = known if len(known) == len(trained) else told.get("pretrained_window_sizes", 0)
    config = read_off | {"img_size": pixels, "window_size": chosen, "pretrained_window_sizes": 0}
    shape = _shape(config)
    differs = len(known) == len(trained) and [tuple(window) for window in known] != list(shape.windows)
    if read_off["version"] == 2 and (differs or (not known and pretrained != 0)):
        config["pretrained_window_sizes"] = pretrained
    with torch.device("meta"):
        made = SwinTransformer(**config).config
    if None not in windows and [tuple(window) for window in windows] != list(shape.windows):
        raise UserError(f"its windows, {simplest(windows)}, do not fit {pixels} pixels, which its config.json or name tells")
    sizes_by_name = {key: simplest(made[key]) for key in ("img_size", "window_size", "pretrained_window_sizes")}
    return made | sizes_by_name


def simplest(sizes: Any) -> Any:
    """One number for a list of equal ones, however deep."""
    if isinstance(sizes, list):
        entries = [simplest(entry) for entry in sizes]
        return entries[0] if all(entry == entries[0] for entry in entries) and not isinstance(entries[0], list) else entries
    return sizes


def _smallest_image(windows: list[list[int]], patch: int) -> list[int]:
    """The smallest image on whose maps every stage's window finds room: the size of all published models."""
    return [max(window[axis] * patch * 2**i for i, window in enumerate(windows)) for axis in (0, 1)]


def _told_by_transformers(beside: dict[str, Any]) -> dict[str, Any]:
    """From config.json of a transformers folder, in our words."""
    if "window_size" not in beside or "image_size" not in beside:
        return {}
    return {
        "img_size": beside["image_size"],
        "window_size": beside["window_size"],
        "pretrained_window_sizes": beside.get("pretrained_window_sizes", 0),
    }


def _variant_beside(beside: dict[str, Any]) -> str | None:
    """The architecture that config.json of a timm model names, if it is one of ours."""
    name = str(beside.get("architecture", "")).split(".")[0]
    return name if name in list_models() else None


def _unknown_windows(read_off: dict[str, Any]) -> str:
    fitting = [
        name
        for name in list_models("swinv2*")
        if all(model_config(name)[key] == read_off[key] for key in ("embed_dim", "depths", "num_heads"))
    ]
    names = f"name=..., one of {', '.join(fitting)}, or " if fitting else ""
    return f"no tensor tells the windows of this V2 network; give {names}window_size and img_size"


def _shape(config: dict[str, Any]) -> SwinShape:
    with torch.device("meta"):
        return SwinTransformer(**config).shape


def _differences(config: dict[str, Any], name: str) -> list[str]:
    """What of a network is not as in a variant, in words."""
    variant = model_config(name)
    found = [f"{key} is {config[key]} in the file, {variant[key]} in {name}" for key in BODY if config[key] != variant[key]]
    if found:
        return found
    ours, theirs = _shape(config), _shape(variant)
    found += [f"windows are {ours.windows} in the file, {theirs.windows} in {name}"] * (ours.windows != theirs.windows)
    trained = ours.trained_windows != theirs.trained_windows
    return found + [f"pretrained windows are {ours.trained_windows}, in {name} {theirs.trained_windows}"] * trained


def _class_names(labels: Any, rows: int, notes: list[str]) -> list[str] | None:
    """From transformers' id2label, else ImageNet's by the number of rows."""
    ids = wordnet_ids(rows)
    named = [str(labels.get(str(i), "")) for i in range(rows)] if isinstance(labels, dict) and len(labels) == rows else []
    if ids is not None and (not named or rows == ROWS_22K or _mostly(named, ids)):
        notes.append(f"{rows} classes: taken for ImageNet-{'1k' if rows == ROWS_1K else '22k'}, in the order of WordNet ids")
        return list(ids)
    return named if named and not all(name.startswith("LABEL_") for name in named) else None


def _mostly(labels: list[str], ids: tuple[str, ...]) -> bool:
    """Whether labels are those of ImageNet (lists differ in a few words), or nothing at all."""
    if all(label.startswith("LABEL_") for label in labels):
        return True
    agreeing = sum(label.lower().split(",")[0] in words(synset).lower() for label, synset in zip(labels, ids, strict=True))
    return agreeing >= 0.9 * len(ids)


def _why_unusable(tensor: torch.Tensor) -> str | None:
    if not tensor.is_floating_point():
        return f"is of type {str(tensor.dtype).removeprefix('torch.')}"
    wrong = int((~tensor.isfinite()).sum())
    return f"holds {wrong} values that are no numbers (nan or inf)" if wrong else None


def _type_notes(tensors: Tensors) -> list[str]:
    types = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values() if tensor.is_floating_point()}
    others = sorted(types - {"float32"})
    return [f"{' and '.join(others)} converted to float32"] if others else []


def listed(names: Sequence[str]) -> str:
    """The first ten names, and how many there are."""
    return ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")


def side_by_side(size: tuple[int, int]) -> str:
    """One number for a square, 4x8 for others."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(_short, value)) if all(isinstance(entry, int) for entry in value) else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
