"""The hyper-parameters and class names of a file: from its metadata, or from its tensors and sidecar files."""

from collections.abc import Mapping, Sequence
from typing import Any

from swin_lab.errors import UserError
from swin_lab.imagenet import ROWS_1K, ROWS_22K, wordnet_ids, words
from swin_lab.metadata import check_class_names
from swin_lab.models import SwinConfig, list_models, model_config
from swin_lab.models.config import BODY, FIELDS, Windows, as_lists
from swin_lab.weights.detect import DetectedLayout, read_architecture

NETWORK_CLASS = "swin_lab.models.SwinTransformer"


def config_of_metadata(model: Mapping[str, Any]) -> SwinConfig:
    """Returns the hyper-parameters in the metadata of a native file.

    Raises:
        UserError: the file contains a network of another class, or its values are invalid.
    """
    target = model.get("_target_")
    if target != NETWORK_CLASS:
        raise UserError(f"the file contains a {target}; only the weights of a {NETWORK_CLASS} can be read")
    return bounded_config({key: value for key, value in model.items() if key != "_target_"})


def config_of_tensors(
    detected: DetectedLayout,
    sidecar: Mapping[str, Any],
    name: str | None,
    img_size: int | Sequence[int] | None,
    window_size: Windows | None,
) -> SwinConfig:
    """Returns the hyper-parameters of a file without metadata: from its tensors, else from arguments or config.json.

    Args:
        detected: the file's tensors.
        sidecar: config.json of the file's folder, {} if there is none.
        name: the variant that the file must contain, if the user named one.
        img_size: height and width in pixels, used if nothing else determines it.
        window_size: windows in tokens, used if nothing else determines it.

    Raises:
        UserError: the windows are unknown, or the values do not fit each other.
    """
    found = read_architecture(detected)
    windows, pretrained = found.pop("window_size"), found.pop("pretrained_window_sizes")
    hints = _hints(name, sidecar)
    if None not in windows:
        size = hints.get("img_size")
        values = {"window_size": windows, "img_size": _smallest_image(windows, found["patch_size"]) if size is None else size}
    elif window_size is not None and img_size is not None:
        values = {"window_size": window_size, "img_size": img_size}
    elif hints:
        values = {key: hints[key] for key in ("window_size", "img_size")}
    else:
        raise UserError(_unknown_windows(found))
    config = bounded_config(found | {key: simplest(value) for key, value in values.items()})
    if None not in windows and as_lists(config.windows) != windows:
        raise UserError(
            f"its windows, {simplest(windows)}, do not fit the image size of its config.json or name, "
            f"{simplest(values['img_size'])}"
        )
    if config.version == 1:
        return config
    if None in pretrained:
        earlier = hints.get("pretrained_window_sizes", 0) if all(window is None for window in pretrained) else 0
    else:
        earlier = 0 if pretrained == as_lists(config.windows) else pretrained
    return bounded_config(config.as_dict() | {"pretrained_window_sizes": simplest(earlier)})


def bounded_config(values: Mapping[str, Any]) -> SwinConfig:
    """Builds a configuration from the values in a file; `SwinConfig` bounds them.

    Raises:
        UserError: a value is unknown, invalid or out of bounds.
    """
    unknown = [key for key in values if key not in FIELDS]
    if unknown:
        raise UserError(f"its description of the model is damaged: it has the unknown key {unknown[0]!r}")
    return SwinConfig(**values)


def simplest(sizes: Any) -> Any:
    """Returns one number for a list of equal ones, at any depth; other values are unchanged."""
    if isinstance(sizes, list | tuple) and sizes:
        entries = [simplest(entry) for entry in sizes]
        return entries[0] if all(entry == entries[0] for entry in entries) and not isinstance(entries[0], list) else entries
    return sizes


def differences(config: SwinConfig, name: str) -> list[str]:
    """Returns descriptions of the differences between a network and a variant that affect weights."""
    variant = model_config(name)
    found = [
        f"{key} is {as_lists(getattr(config, key))} in the file, {as_lists(getattr(variant, key))} in {name}"
        for key in BODY
        if getattr(config, key) != getattr(variant, key)
    ]
    if found:
        return found
    if config.windows != variant.windows:
        found.append(f"windows are {config.windows} in the file, {variant.windows} in {name}")
    if config.pretrained_windows != variant.pretrained_windows:
        found.append(f"pretrained windows are {config.pretrained_windows}, in {name} {variant.pretrained_windows}")
    return found


def class_names_of(labels: Any, rows: int, notes: list[str]) -> tuple[str, ...] | None:
    """Returns the class names of a file without metadata: transformers' id2label, else ImageNet's by the number of rows.

    Args:
        labels: id2label of config.json, if there is one.
        rows: of the head.
        notes: gets an entry if the classes are assumed to be ImageNet's, or their names cannot be used.
    """
    ids = wordnet_ids(rows)
    named = [labels.get(str(i), "") for i in range(rows)] if isinstance(labels, dict) and len(labels) == rows else []
    if not all(isinstance(name, str) for name in named):
        notes.append("the class names of config.json are not used: they are not strings")
        named = []
    if ids is not None and (not named or rows == ROWS_22K or _are_imagenet(named, ids)):
        notes.append(f"{rows} classes: taken for ImageNet-{'1k' if rows == ROWS_1K else '22k'}, in the order of WordNet ids")
        return tuple(ids)
    if not named or all(name.startswith("LABEL_") for name in named):
        return None
    try:
        check_class_names(named)
    except UserError as error:
        notes.append(f"the class names of config.json are not used: {error}")
        return None
    return tuple(named)


def _are_imagenet(labels: list[str], ids: tuple[str, ...]) -> bool:
    """Returns whether labels are those of ImageNet (lists differ in a few words), or placeholders."""
    if all(label.startswith("LABEL_") for label in labels):
        return True
    agreeing = sum(label.lower().split(",")[0] in words(synset).lower() for label, synset in zip(labels, ids, strict=True))
    return agreeing >= 0.9 * len(ids)


def _hints(name: str | None, sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Returns image size and windows of a variant (of `name` or timm's config.json), or of transformers' config.json."""
    variant = name or str(sidecar.get("architecture", "")).split(".")[0]
    if variant in list_models():
        config = model_config(variant)
        return {key: getattr(config, key) for key in ("img_size", "window_size", "pretrained_window_sizes")}
    if "window_size" not in sidecar or "image_size" not in sidecar:
        return {}
    return {
        "img_size": sidecar["image_size"],
        "window_size": sidecar["window_size"],
        "pretrained_window_sizes": sidecar.get("pretrained_window_sizes", 0),
    }


def _smallest_image(windows: list[list[int]], patch: int) -> list[int]:
    """Returns the smallest image whose maps contain every stage's window: the size of all published models."""
    return [max(window[axis] * patch * 2**i for i, window in enumerate(windows)) for axis in (0, 1)]


def _unknown_windows(found: Mapping[str, Any]) -> str:
    """Returns a message with the variants that the file may contain."""
    fitting = [
        name
        for name in list_models("swinv2*")
        if all(as_lists(getattr(model_config(name), key)) == found[key] for key in ("embed_dim", "depths", "num_heads"))
    ]
    names = f"name=..., one of {', '.join(fitting)}, or " if fitting else ""
    return f"the tensors of this network do not determine its window sizes; give {names}window_size and img_size"
