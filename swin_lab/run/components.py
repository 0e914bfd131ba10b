"""Pure functions from a configuration to typed components, shared by training, evaluation, recipes, commands and tests.

Every component is complete when it is constructed, and no function here changes one. Models are built in model.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lightning import Callback
from torch import nn

from swin_lab.data import ImageSource, LoaderConfig, channel_statistics
from swin_lab.errors import UserError, did_you_mean
from swin_lab.models import SwinTransformer
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.instantiate import Parameters, build_dataclass, check_keys, instantiate, is_chosen, resolve
from swin_lab.run.model import SWIN, Model
from swin_lab.run.settings import Node, TrainConfig, TransferConfig
from swin_lab.run.trainer import check_trainer
from swin_lab.training import DataDescription, EmaConfig, OptimizerConfig, Schedule, Task
from swin_lab.training.optim import RECIPE_KEYS
from swin_lab.weights.preprocessing import preset_preprocessing

LOADER_KEYS = tuple(field.name for field in fields(LoaderConfig))

Step = Callable[[Any], Any]
"""Maps an image to an image, or a tensor to a tensor."""


@dataclass(frozen=True)
class Data:
    """Contains a data set and the settings of its loader."""

    source: ImageSource
    loader: LoaderConfig

    @property
    def description(self) -> DataDescription:
        """Returns the part of the data that a task may use."""
        val = self.source.val
        return DataDescription(
            class_names=tuple(self.source.class_names), num_val_images=len(val.labels), val_image_name=val.name
        )


@dataclass(frozen=True)
class Optimization:
    """Contains the settings of weight updates."""

    optimizer: OptimizerConfig
    schedule: Schedule
    ema: EmaConfig | None


@dataclass(frozen=True)
class Augmentation:
    """Contains the random transforms of training images."""

    image_transforms: Sequence[Step]
    tensor_transforms: Sequence[Step]


def check_settings(config: Mapping[str, Any]) -> None:
    """Checks the types of the top-level keys of conf/train.yaml, and of `transfer` and `trainer`; name may be missing.

    Raises:
        UserError: a key is unknown, or a value is invalid.
    """
    build_dataclass("", TrainConfig, {**config, "name": str(config["name"])})
    build_dataclass("transfer", TransferConfig, config["transfer"])
    check_trainer(config["trainer"])


def build_data(node: Node) -> Data:
    """Builds the dataset of a `data` node."""
    check_keys("data", node, also=LOADER_KEYS)
    loader = loader_config(node)
    return Data(instantiate("data", {key: value for key, value in node.items() if key not in LOADER_KEYS}), loader)


def loader_config(node: Node) -> LoaderConfig:
    """Returns the loader settings among the keys of a `data` node."""
    return build_dataclass("data", LoaderConfig, {key: value for key, value in node.items() if key in LOADER_KEYS})


def build_task(node: Node, data: DataDescription) -> Task:
    """Builds the task of a `task` node for the data."""
    task: Task = instantiate("task", node, {"data": data}, Task)
    return task


def build_optimization(optimizer: Node, schedule: Node, ema: Node) -> Optimization:
    """Builds the choices of the groups `optimizer`, `schedule` and `ema`.

    An `optimizer` node names any optimizer class; the keys of `OptimizerConfig` belong to the recipe, the others to the class.
    """
    try:
        check_keys("optimizer", optimizer, also=sorted(RECIPE_KEYS))
    except UserError as error:  # The defaults are those of AdamW.
        target = optimizer.get("_target_")
        raise UserError(f"{error}\nAn argument that {target} does not have is removed with ~optimizer.KEY") from error
    settings = {key: value for key, value in optimizer.items() if key not in RECIPE_KEYS}
    create = instantiate("optimizer", settings | {"_partial_": True})
    recipe = {key: value for key, value in optimizer.items() if key in RECIPE_KEYS}
    return Optimization(
        build_dataclass("optimizer", OptimizerConfig, recipe | {"create": create}),
        instantiate("schedule", schedule, kind=Schedule),
        instantiate("ema", ema, kind=EmaConfig) if is_chosen(ema) else None,
    )


def build_preprocessing(model: Model, data: Data | None, loader: LoaderConfig, preset: str | None) -> Preprocessing:
    """Returns the preprocessing of a model: that of a preset, of the model itself, or of the loader settings, in this order.

    Args:
        model: the network, its input size and number of channels.
        data: the data on which mean and std are measured if the loader settings do not contain them.
        loader: settings of the `data` group.
        preset: official, timm, torchvision or huggingface.

    Raises:
        UserError: a value is invalid, or the preset is unknown or not for this network.
    """
    if preset is None and model.own_preprocessing is not None:
        return model.own_preprocessing
    settings: dict[str, Any] = {key: getattr(loader, key) for key in ("resize_mode", "crop_pct", "interpolation")}
    if preset is not None:
        settings = preset_settings(preset, model.network)
    mean, std = loader.mean, loader.std
    if mean is None or std is None:
        assert data is not None
        measured = channel_statistics(data.source.train)
        mean, std = measured[0] if mean is None else mean, measured[1] if std is None else std
    channels = int(getattr(model.network, "in_channels", None) or model.node.get("in_channels") or 3)
    return Preprocessing.for_data(img_size=model.img_size, channels=channels, mean=mean, std=std, **settings)


def preset_settings(preset: str, network: nn.Module) -> dict[str, Any]:
    """Returns the preprocessing values of a preset for a network.

    Raises:
        UserError: the preset is unknown, or not for this network.
    """
    if not isinstance(network, SwinTransformer):
        raise UserError(f"preset={preset} is for {SWIN}; the model is a {type(network).__name__}")
    return preset_preprocessing(preset, network.config)


def build_callbacks(nodes: Node | None, monitor: str, mode: str) -> tuple[Callback, ...]:
    """Builds the callbacks of the `callbacks` group.

    Args:
        nodes: name -> node; null removes a callback.
        monitor: full name of the monitored metric; a callback that requires `monitor` gets it, and `mode`, if it has none.
        mode: min or max.
    """
    callbacks: list[Callback] = []
    for name, node in (nodes or {}).items():
        if node is None:
            continue
        required = "monitor" in Parameters.of(resolve(f"callbacks.{name}", node)).required
        callbacks.append(
            instantiate(f"callbacks.{name}", node, {"monitor": monitor, "mode": mode} if required else None, Callback)
        )
    return tuple(callbacks)


def build_augmentation(node: Node, preprocessing: Preprocessing) -> Augmentation:
    """Builds the augmentation of an `augment` node: a class that has both lists of transforms, or the lists themselves.

    Transforms that need `size`, `img_size` or `mean` and are not given one get that of the preprocessing.

    Raises:
        UserError: the node has neither.
    """
    size = list(preprocessing.img_size)
    known = {"size": size, "img_size": size, "mean": preprocessing.mean}
    if "_target_" in node:
        built = instantiate("augment", node, _required("augment", node, known))
        return Augmentation(built.image_transforms, built.tensor_transforms)
    lists = [field.name for field in fields(Augmentation)]
    for key in node:
        if key not in lists:
            raise UserError(f"unknown key augment.{key}{did_you_mean(str(key), lists)}")
    for key in lists:
        if not isinstance(node.get(key), list):
            raise UserError(f"augment.{key} must be a list of transforms; an empty list is []")
    places = {key: f"augment.{key}" for key in lists}
    return Augmentation(
        *([instantiate(places[key], step, _required(places[key], step, known)) for step in node[key]] for key in lists)
    )


def _required(where: str, node: Node, known: dict[str, Any]) -> dict[str, Any]:
    """Returns the known values that are required parameters of a target; parameters with a default keep it."""
    required = Parameters.of(resolve(where, node)).required
    return {key: value for key, value in known.items() if key in required}
