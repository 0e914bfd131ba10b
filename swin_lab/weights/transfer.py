"""Fills a network with the weights of a checkpoint, and reports what was done."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from swin_lab.errors import UserError, printable_line
from swin_lab.imagenet import ROWS_1K, wordnet_ids
from swin_lab.models import SwinConfig, SwinTransformer
from swin_lab.models.config import BODY, FIELDS, as_lists
from swin_lab.ops.geometry import Size
from swin_lab.weights.adapt import adapt_channels, check_method, resize_table
from swin_lab.weights.checkpoint import Checkpoint, format_size, listed
from swin_lab.weights.head import HeadPlan, fill_head, plan_head
from swin_lab.weights.preprocessing import adapted_preprocessing
from swin_lab.weights.source_config import simplest


@dataclass(frozen=True)
class LoadReport:
    """Describes which tensors of a checkpoint were loaded, resized or left out."""

    checkpoint: Checkpoint
    loaded: int
    """Number of the checkpoint's tensors that were loaded."""
    resized: list[str]
    """Descriptions of the resized tensors, one per kind."""
    head: str
    """Description of the head's transfer."""
    rows: list[int | None] | None
    """For each class its row of the checkpoint's head, None for a newly initialised class. If None, the whole head is new."""
    new: list[str]
    """Native names of tensors that the checkpoint did not fill, except the head's."""

    @property
    def keeps_all_classes(self) -> bool:
        """Returns whether every class of the network has its row from the checkpoint's head."""
        return bool(self.rows) and None not in (self.rows or ())

    def lines(self) -> list[tuple[str, str]]:
        """Returns the report as (label, text)."""
        checkpoint = self.checkpoint
        done = [
            ("loaded", f"{self.loaded} of {len(checkpoint.tensors)} tensors"),
            *(("resized", entry) for entry in self.resized),
            ("head", self.head),
            *([("new", listed(self.new))] if self.new else []),
        ]
        return [*checkpoint.origin(), *done, *checkpoint.remarks()]

    def __str__(self) -> str:
        return "\n".join(f"{label:<10} {printable_line(text)}" for label, text in self.lines())


def with_pretrained_windows(checkpoint: Checkpoint, node: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys that a `model` node needs in addition for a checkpoint.

    Args:
        checkpoint: the weights.
        node: fields of `SwinConfig`, plain Python; `_target_` is ignored, and null stands for the default.

    Returns:
        {} for V1 and Swin-MLP; for V2 `pretrained_window_sizes`, the windows with which the checkpoint's position bias was
        trained.

    Raises:
        UserError: the network differs from the checkpoint's, in Swin-MLP also in its windows.
    """
    values = {key: node[key] for key in FIELDS if node.get(key) is not None and key != "pretrained_window_sizes"}
    config = SwinConfig(**values)
    for key in BODY:
        if getattr(config, key) != getattr(checkpoint.config, key):
            variants = checkpoint.variants
            raise UserError(
                f"{checkpoint.source} does not fit the model: {key} is {as_lists(getattr(checkpoint.config, key))} in the file "
                f"and {as_lists(getattr(config, key))} in the model" + (f"; the file is a {variants[0]}" if variants else "")
            )
    if config.token_mixer == "mlp" and config.windows != checkpoint.config.windows:
        old, new = ("-".join(map(format_size, windows)) for windows in (checkpoint.config.windows, config.windows))
        raise UserError(
            f"{checkpoint.source} does not fit the model: windows are {old} in the file and {new} in the model, and "
            "the weights of a Swin-MLP cannot be resized.\nKeep window_size, and the img_size of the file or a larger one"
        )
    if config.version == 1:
        return {}
    pretrained = checkpoint.config.pretrained_windows
    return {"pretrained_window_sizes": 0 if config.windows == pretrained else simplest(as_lists(pretrained))}


def transfer(
    checkpoint: Checkpoint,
    network: SwinTransformer,
    *,
    head: str = "auto",
    class_names: Sequence[str] | None = None,
    bias_interpolation: str = "bicubic",
    strict: bool = True,
) -> LoadReport:
    """Fills a network with a checkpoint's weights, and sets its class names and preprocessing.

    Args:
        checkpoint: the weights.
        network: a network of the same version, channels, depths and heads, built with the values of `with_pretrained_windows`.
        head: see `plan_head`.
        class_names: names of the network's classes, if they are known.
        bias_interpolation: how V1's bias tables are resized, `bicubic` or `geometric`.
        strict: whether missing, unusable and unknown tensors and shape mismatches are an error.

    Raises:
        UserError: the checkpoint does not fit; the network is then unchanged.
    """
    check_method(bias_interpolation)
    if strict:
        refuse_partial(checkpoint)
    config, tensors = network.config, checkpoint.tensors
    plan = plan_head(
        head,
        checkpoint.config.num_classes if _is_usable(checkpoint, "head.weight") else 0,
        config.num_classes,
        checkpoint.class_names,
        class_names,
    )
    adapted, new, resized = _adapted_tensors(checkpoint, network, bias_interpolation)
    preprocessing = adapted_preprocessing(checkpoint.preprocessing, config)

    network.load_state_dict(adapted, strict=False)
    loaded = len(adapted)
    if plan.rows is not None:
        assert isinstance(network.head, nn.Linear)
        bias = tensors["head.bias"] if _is_usable(checkpoint, "head.bias") else None
        fill_head(network.head, plan, tensors["head.weight"], bias)
        new += ["head.bias"] * (bias is None)
        loaded += 1 + (bias is not None)
    network.class_names = _class_names(plan, class_names, checkpoint.class_names)
    network.preprocessing = preprocessing
    network.thresholds = _thresholds(plan, checkpoint.thresholds)
    return LoadReport(checkpoint, loaded, resized, plan.description, plan.rows, new)


def refuse_partial(checkpoint: Checkpoint) -> None:
    """Raises UserError if tensors are missing, unknown or unusable, or have the wrong shape."""
    headless = checkpoint.config.num_classes == 0
    missing = [key for key in checkpoint.missing if not (headless and key.startswith("head."))]
    problems = [
        f"{what} {len(names)} of the network's tensors: {listed(names)}"
        for what, names in (
            ("lacks", missing),
            ("has the wrong shape for", list(checkpoint.shape_mismatches.values())),
            ("has unusable values in", checkpoint.unusable),
        )
        if names
    ]
    if checkpoint.unexpected:
        problems.append(
            f"contains {len(checkpoint.unexpected)} tensors that no Swin Transformer has: {listed(checkpoint.unexpected)}"
        )
    if problems:
        raise UserError(
            f"{checkpoint.source} (layout {checkpoint.layout.label}) "
            + "\nand ".join([problems[0], *(["; and ".join(problems[1:])] if problems[1:] else [])])
            + "\nNothing was loaded; strict=false loads all usable tensors."
        )


def _adapted_tensors(
    checkpoint: Checkpoint, network: SwinTransformer, bias_interpolation: str
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Adapts a checkpoint's tensors, except the head's, to a network's windows and channels.

    Returns:
        The tensors by name, the names of those that the checkpoint does not have, and descriptions of the resized ones.
    """
    old, wanted = checkpoint.config, network.config
    adapted: dict[str, Tensor] = {}
    new: list[str] = []
    tables: Counter[str] = Counter()
    resized: list[str] = []
    for key, parameter in network.state_dict().items():
        if key.startswith("head."):
            continue
        if not _is_usable(checkpoint, key):
            new.append(key)
            continue
        tensor = checkpoint.tensors[key]
        if key.endswith("relative_position_bias_table"):
            i = int(key.split(".")[1])
            if old.windows[i] != wanted.windows[i]:
                tensor = resize_table(tensor, old.windows[i], wanted.windows[i], bias_interpolation)
                tables[f"{_table(old.windows[i])} -> {_table(wanted.windows[i])}"] += 1
        elif key == "embed.proj.weight" and tensor.shape[1] != parameter.shape[1]:
            resized.append(f"patch embedding from {tensor.shape[1]} to {parameter.shape[1]} input channels")
            tensor = adapt_channels(tensor, parameter.shape[1])
        adapted[key] = tensor
    resized += [f"{count} tables {sizes} ({bias_interpolation})" for sizes, count in tables.items()]
    return adapted, new, resized + _window_changes(wanted)


def _window_changes(config: SwinConfig) -> list[str]:
    """Returns a description of windows that differ from those with which V2's position bias was trained."""
    pairs = zip(config.pretrained_windows, config.windows, strict=True)
    changes = dict.fromkeys(f"{format_size(old)} -> {format_size(new)}" for old, new in pairs if old != new)
    return [f"windows {', '.join(changes)}: the bias keeps the coordinates of its training"] if changes else []


def _is_usable(checkpoint: Checkpoint, key: str) -> bool:
    """Returns whether the checkpoint has a tensor with the right shape and a floating-point dtype."""
    tensor = checkpoint.tensors.get(key)
    return tensor is not None and key not in checkpoint.shape_mismatches and tensor.is_floating_point()


def _class_names(plan: HeadPlan, wanted: Sequence[str] | None, stored: Sequence[str] | None) -> tuple[str, ...] | None:
    """Returns the class names of a network after the transfer: the given ones, else those of the checkpoint's rows."""
    if wanted is not None:
        return tuple(wanted)
    if plan.rows is None:
        return None
    if stored is not None and plan.rows == list(range(len(stored))):
        return tuple(stored)
    return tuple(wordnet_ids(ROWS_1K) or ()) if len(plan.rows) == ROWS_1K else None


def _thresholds(plan: HeadPlan, stored: Sequence[float] | None) -> tuple[float, ...] | None:
    """Returns the thresholds of the checkpoint's rows; None if there are none, or if a class is new."""
    if plan.rows is None or stored is None or None in plan.rows:
        return None
    return tuple(stored[row] for row in plan.rows if row is not None)


def _table(window: Size) -> str:
    """Returns the size of a window's bias table, for the report."""
    return f"{2 * window[0] - 1}x{2 * window[1] - 1}"
