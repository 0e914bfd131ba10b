"""Pure functions from a configuration to typed components, shared by training, evaluation, recipes, commands and tests.

Every component is complete when it is constructed, and no function here changes one. Models are built in model.py.
"""

import logging
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

from lightning import Callback
from torch import nn

from swin_lab.data import ImageSource, LoaderConfig, channel_statistics, check_source, class_shares, has_several_labels
from swin_lab.data.decoders import check_installed
from swin_lab.errors import UserError, did_you_mean
from swin_lab.models import SwinConfig
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.batching import Batching
from swin_lab.run.instantiate import build_dataclass, check_keys, instantiate, is_chosen
from swin_lab.run.model import SWIN, Model
from swin_lab.run.settings import Node
from swin_lab.run.targets import Parameters, resolve
from swin_lab.run.trainer import check_batches
from swin_lab.training import DataDescription, EmaConfig, OptimizerConfig, Schedule, Task
from swin_lab.training.evaluation import logged_metrics, monitored_metric
from swin_lab.training.optim import RECIPE_KEYS
from swin_lab.weights.preprocessing import check_preset, preset_preprocessing

log = logging.getLogger("swin_lab")

LOADER_KEYS = tuple(field.name for field in fields(LoaderConfig))


@dataclass(frozen=True)
class Data:
    """Contains a data set and the settings of its loader."""

    source: ImageSource
    loader: LoaderConfig

    @property
    def description(self) -> DataDescription:
        """Returns the part of the data that a task may use."""
        val, names = self.source.val, tuple(self.source.class_names)
        return DataDescription(
            class_names=names,
            several_labels=has_several_labels(val),
            train_shares=class_shares(self.source.train, len(names)),
            num_val_images=len(val.labels),
            val_image_name=val.name,
        )


@dataclass(frozen=True)
class Optimization:
    """Contains the settings of weight updates."""

    optimizer: OptimizerConfig
    schedule: Schedule
    ema: EmaConfig | None


def accepts(group: str, node: Node, key: str) -> bool:
    """Returns whether the class that a group's node names, or the recipe or loader settings beside it, take a key."""
    signature = Parameters.of(resolve(group, node))
    beside = {"optimizer": RECIPE_KEYS, "data": LOADER_KEYS}.get(group, ())
    return signature.takes_any or key in signature.names or key in beside


def build_data(node: Node) -> Data:
    """Builds the dataset of a `data` node."""
    check_keys("data", node, also=LOADER_KEYS)
    loader = loader_config(node)
    check_installed(loader.decoder)
    source = instantiate("data", {key: value for key, value in node.items() if key not in LOADER_KEYS})
    return Data(check_source(source), loader)


def loader_config(node: Node) -> LoaderConfig:
    """Returns the loader settings among the keys of a `data` node."""
    return build_dataclass("data", LoaderConfig, {key: value for key, value in node.items() if key in LOADER_KEYS})


def check_validation_images(source: ImageSource, devices: int) -> None:
    """Raises UserError if there are fewer validation images than devices."""
    if (images := len(source.val.labels)) < devices:
        raise UserError(f"there are {images} validation images for {devices} devices; provide more, or lower trainer.devices")


def build_task(node: Node, data: DataDescription) -> Task:
    """Builds the task of a `task` node for the data."""
    return instantiate("task", node, {"data": data}, Task)


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
    recipe = {key: value for key, value in optimizer.items() if key in RECIPE_KEYS}
    recipe["create"] = instantiate("optimizer", settings | {"_partial_": True})
    return Optimization(
        build_dataclass("optimizer", OptimizerConfig, recipe),
        instantiate("schedule", schedule, kind=Schedule),
        instantiate("ema", ema, kind=EmaConfig) if is_chosen("ema", ema) else None,
    )


def build_preprocessing(model: Model, data: Data | None, loader: LoaderConfig, preset: str | None) -> Preprocessing:
    """Returns the preprocessing of a model: that of a preset, of the model itself, or of the loader settings, in this order.

    A preset is for Swin Transformers. An experiment that sets one can be used with any network, so it is left out for others.

    Args:
        model: the network, its input size and number of channels.
        data: the data on which mean and std are measured if the loader settings do not contain them.
        loader: settings of the `data` group.
        preset: official, timm, torchvision or huggingface.

    Raises:
        UserError: a value is invalid, or the preset is unknown.
    """
    if preset is not None and config_of(model.network) is None:
        check_preset(preset)
        used = "the data.* settings apply" if model.own_preprocessing is None else "its own preprocessing is used"
        log.info("%-10s preset=%s is for %s; for a %s, %s", "note", preset, SWIN, type(model.network).__name__, used)
        preset = None
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
    if (config := config_of(network)) is None:
        raise UserError(f"preset={preset} is for {SWIN}; the model is a {type(network).__name__}")
    return preset_preprocessing(preset, config)


def config_of(network: nn.Module) -> SwinConfig | None:
    """Returns the hyper-parameters of a Swin Transformer, also where a task has added to it. Of others, returns None."""
    config = getattr(network, "config", None)
    return config if isinstance(config, SwinConfig) else None


def build_callbacks(nodes: Node | None, task: Task, has_ema: bool) -> tuple[Callback, ...]:
    """Builds the callbacks of the `callbacks` group.

    Args:
        nodes: name -> node; null removes a callback.
        task: defines the monitored metric; a callback that requires `monitor` gets it, and `mode`, if it has none.
        has_ema: whether the run has a moving average of the weights, whose metric is then monitored.

    Raises:
        UserError: a node is invalid, or a callback monitors a metric that is not logged.
    """
    callbacks: list[Callback] = []
    provided = {"monitor": monitored_metric(task, has_ema), "mode": task.monitor.mode}
    for name, node in (nodes or {}).items():
        if node is None:
            continue
        required = "monitor" in Parameters.of(resolve(f"callbacks.{name}", node)).required
        callback: Callback = instantiate(f"callbacks.{name}", node, provided if required else None, Callback)
        monitored, logged = getattr(callback, "monitor", None), logged_metrics(task, has_ema)
        if monitored is not None and monitored not in logged:
            raise UserError(f"callbacks.{name}.monitor={monitored} is not logged{did_you_mean(monitored, logged)}")
        callbacks.append(callback)
    return tuple(callbacks)


def check_sizes(source: ImageSource, batching: Batching, trainer: Node) -> None:
    """Raises UserError if there are too few images for the batch, the devices or the limits of the `trainer` node."""
    train = len(source.train.labels)
    if train == 0:
        raise UserError("data.val_only=true leaves no training images; remove it, or evaluate with eval.py")
    if train < batching.global_batch:
        raise UserError(f"global_batch={batching.global_batch} is larger than the {train} training images; lower it")
    check_validation_images(source, batching.devices)
    val_batches = ceil(ceil(len(source.val.labels) / batching.devices) / batching.device_batch)
    check_batches(trainer, train // batching.global_batch * batching.accumulate, val_batches)
