"""A weight file and the network in it, under native names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from swin_lab.errors import UserError
from swin_lab.models import SwinConfig, SwinTransformer, list_models, model_config
from swin_lab.models.config import Windows
from swin_lab.models.lora import LoraConfig
from swin_lab.models.published import published_weights
from swin_lab.preprocessing import Preprocessing
from swin_lab.weights.detect import DetectedLayout, bare_name, detect_layout, find_tensors
from swin_lab.weights.files import Contents, find_file, read
from swin_lab.weights.hub import fetch, is_hub_id
from swin_lab.weights.layouts import Layout
from swin_lab.weights.packing import Tensors
from swin_lab.weights.preprocessing import published_preprocessing
from swin_lab.weights.source_config import class_names_of, config_of_metadata, config_of_tensors, differences
from swin_lab.weights.values import why_unusable

MAX_LISTED = 10
"""Number of names that a list in a message contains at most."""

MAX_GROWTH, ALWAYS_BUILT = 8, 2**26
"""A network may have this many times the parameters in its file, which may lack some, and 67 million in any case."""


@dataclass(frozen=True)
class Checkpoint:
    """Describes the weights of a Swin Transformer: tensors, hyper-parameters, class names and preprocessing."""

    source: str
    """The file, run, folder or hub id as the user gave it."""
    file: Path
    layout: Layout
    key: str
    """Key of the weights in the file, "" if they are at the top level."""
    tensors: Tensors
    """Native name -> tensor; names in `missing` are absent."""
    config: SwinConfig
    """Hyper-parameters of the network."""
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    missing: list[str]
    shape_mismatches: dict[str, str]
    """Native name -> description, for tensors of the wrong shape."""
    unusable: list[str]
    """Descriptions of tensors of the wrong type, or with values that are NaN or infinite."""
    unexpected: list[str]
    derived: list[str]
    left_out: list[str]
    notes: list[str] = field(default_factory=list)
    thresholds: tuple[float, ...] | None = None
    """Of each class, if the file is that of a classification with several labels per image."""

    @property
    def variants(self) -> list[str]:
        """Returns the names of the variants that have the same weights as this network."""
        return [name for name in list_models() if not differences(self.config, name)]

    def origin(self) -> list[tuple[str, str]]:
        """Returns which file and which network this is, as (label, text)."""
        config, variants = self.config, self.variants
        windows = "-".join(format_size(window) for window in dict.fromkeys(config.windows))
        depths, heads = ("-".join(map(str, numbers)) for numbers in (config.depths, config.num_heads))
        kind = "Swin-MLP" if config.token_mixer == "mlp" else f"Swin V{config.version}"
        network = (
            f"{kind}, C={config.embed_dim}, depths {depths}, heads {heads}, windows {windows}, "
            f"{format_size(config.image_size)} pixels, {config.num_classes} classes"
        )
        return [
            ("weights", f"{self.source}, layout {self.layout.label}" + (f", key {self.key}" if self.key else "")),
            ("network", network + (f" = {variants[0]}" if variants else "")),
        ]

    def remarks(self) -> list[tuple[str, str]]:
        """Returns ignored and unused tensors, warnings and notes, as (label, text)."""
        derived = Counter(name.rpartition(".")[2] for name in self.derived)
        outside = ", ".join(dict.fromkeys(bare_name(name).split(".")[0] for name in self.left_out))
        lines = [
            ("ignored", ", ".join(f"{count} {name}" for name, count in derived.items()) + " (derived)" * bool(derived)),
            ("left out", f"{len(self.left_out)} tensors outside the network ({outside})" if outside else ""),
            ("unused", listed(self.unexpected + list(self.shape_mismatches.values()))),
            ("warning", listed(self.unusable)),
            *(("note", note) for note in self.notes),
        ]
        return [(label, text) for label, text in lines if text]

    def lines(self) -> list[tuple[str, str]]:
        """Returns the full description of the file, as (label, text)."""
        config = self.config
        pretrained = "-".join(map(format_size, config.pretrained_windows))
        values = sum(tensor.numel() for tensor in self.tensors.values())
        lines = [
            ("tensors", f"{len(self.tensors)} of the network, {values:,} parameters"),
            ("pretrained", f"with windows {pretrained}" if config.pretrained_windows != config.windows else ""),
            ("missing", listed(self.missing)),
            (
                "classes",
                listed(self.class_names) if self.class_names else "not named" if config.num_classes else "none: no head",
            ),
            ("images", str(self.preprocessing) if self.preprocessing is not None else ""),
        ]
        return [*self.origin(), *((label, text) for label, text in lines if text), *self.remarks()]


def read_source(source: str | Path) -> Contents:
    """Reads a file, a run directory, a folder of transformers or timm, or a model of the hub, once.

    Raises:
        UserError: the source does not exist, is damaged, or contains code.
    """
    return read(locate(str(source)), str(source))


def open_checkpoint(
    source: str | Path | Contents,
    *,
    name: str | None = None,
    img_size: int | Sequence[int] | None = None,
    window_size: Windows | None = None,
    ema: bool = False,
) -> Checkpoint:
    """Detects the Swin Transformer in a file, a run directory, a folder of transformers or timm, or a model on the hub.

    Args:
        source: its path, OWNER/NAME on the hub, or what `read_source` has returned.
        name: the expected variant; needed for V2 files that do not contain their window sizes.
        img_size: pixels, used if neither the file nor `name` determines it.
        window_size: tokens, used if neither the file nor `name` determines it.
        ema: whether to take the moving average of the weights.

    Raises:
        UserError: the source does not exist, is damaged, contains code, or contains no Swin Transformer.
    """
    if name is not None:
        model_config(name)  # It raises UserError for an unknown name.
    contents = source if isinstance(source, Contents) else read_source(source)
    try:
        return _checkpoint(contents, name, img_size, window_size, ema)
    except UserError as error:
        raise UserError(f"{contents.label}: {error}") from error


def locate(source: str) -> Path:
    """Returns the file or folder at a path, or that of a model on the hub, which is downloaded.

    Raises:
        UserError: the path or model does not exist.
    """
    if is_hub_id(source):
        return fetch(source)
    if source in list_models() and not Path(source).exists():
        raise UserError(
            f"{source} is the name of a model, not of a file; swin_lab.create_model creates one with random weights, "
            f"published ones are {published_weights(source)}"
        )
    return find_file(source)


def _checkpoint(
    contents: Contents,
    name: str | None,
    img_size: int | Sequence[int] | None,
    window_size: Windows | None,
    ema: bool,
) -> Checkpoint:
    """Detects layout and network in the contents of a file, and compares their tensors."""
    if contents.metadata is not None:
        config_of_metadata(contents.metadata.model)  # It refuses a network of another class, whose tensors no layout explains.
    tensors, key, has_other = find_tensors(contents.state, ema)
    detected = detect_layout(tensors)
    notes = ["the file also contains " + ("the raw weights" if ema else "EMA weights; the option ema selects them")] * has_other
    if contents.metadata is not None:
        notes += [text for _, text in contents.metadata.notes]
    config, class_names, preprocessing = _description(contents, detected, name, img_size, window_size, notes)
    if name is not None and (found := differences(config, name)):
        raise UserError(f"this is not a {name}: {found[0]}")
    with torch.device("meta"):
        expected = {key: tensor.shape for key, tensor in SwinTransformer(config).state_dict().items()}
    _refuse_larger_network(sum(shape.numel() for shape in expected.values()), detected.tensors)
    return Checkpoint(
        contents.label,
        contents.file,
        detected.layout,
        key,
        detected.tensors,
        config,
        class_names,
        preprocessing,
        missing=[key for key in expected if key not in detected.tensors],
        shape_mismatches={
            key: f"{key} is {tuple(tensor.shape)}, not {tuple(expected[key])}"
            for key, tensor in detected.tensors.items()
            if key in expected and tensor.shape != expected[key]
        },
        unusable=[f"{key} {why}" for key, tensor in detected.tensors.items() if (why := why_unusable(tensor))],
        unexpected=detected.unknown + [key for key in detected.tensors if key not in expected],
        derived=list(detected.derived),
        left_out=detected.left_out,
        notes=notes + _adapter_notes(contents.lora) + _type_notes(detected.tensors),
        thresholds=contents.metadata.thresholds if contents.metadata is not None else None,
    )


def _description(
    contents: Contents,
    detected: DetectedLayout,
    name: str | None,
    img_size: int | Sequence[int] | None,
    window_size: Windows | None,
    notes: list[str],
) -> tuple[SwinConfig, tuple[str, ...] | None, Preprocessing | None]:
    """Returns hyper-parameters, class names and preprocessing: of the metadata, else of tensors and sidecar files."""
    if contents.metadata is not None:
        metadata = contents.metadata
        return config_of_metadata(metadata.model), metadata.class_names, metadata.preprocessing
    config = config_of_tensors(detected, contents.config, name, img_size, window_size)
    class_names = class_names_of(contents.config.get("id2label"), config.num_classes, notes)
    preprocessing = published_preprocessing(detected.layout.name, config, contents.config, contents.preprocessor)
    return config, class_names, preprocessing


def _refuse_larger_network(described: int, tensors: Tensors) -> None:
    """Raises UserError if a file describes a far larger network than it has weights for; building it would cost the memory."""
    contained = sum(tensor.numel() for tensor in tensors.values())
    if described > MAX_GROWTH * contained + ALWAYS_BUILT:
        raise UserError(f"it describes a network of {described:,} parameters and contains {contained:,}")


def _adapter_notes(lora: LoraConfig | None) -> list[str]:
    return [] if lora is None else [f"adapters added to the weights: {lora}"]


def _type_notes(tensors: Tensors) -> list[str]:
    """Returns a note on tensors that are not in single precision."""
    types = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values() if tensor.is_floating_point()}
    others = sorted(types - {"float32"})
    return [f"{' and '.join(others)} converted to float32"] if others else []


def listed(names: Sequence[str]) -> str:
    """Returns the first ten names, and how many there are."""
    return ", ".join(names[:MAX_LISTED]) + (f", ... ({len(names)} in all)" if len(names) > MAX_LISTED else "")


def format_size(size: tuple[int, int]) -> str:
    """Returns one number for a square, and 4x8 for other sizes."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
