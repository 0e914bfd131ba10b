"""The components of a training run, built and checked before the run directory exists."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback

from swin_lab.data import ImageData, ImageSource
from swin_lab.data.transforms import eval_transform, train_transform
from swin_lab.errors import UserError
from swin_lab.metadata import Metadata, RunMetadata
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.batching import Batching, split_batch
from swin_lab.run.components import (
    Data,
    Optimization,
    build_augmentation,
    build_callbacks,
    build_data,
    build_optimization,
    build_preprocessing,
    build_task,
)
from swin_lab.run.instantiate import build_dataclass, check_config, check_keys, is_chosen
from swin_lab.run.model import Model, build_model, open_weights
from swin_lab.run.settings import TrainConfig, TransferConfig
from swin_lab.run.trainer import Launch
from swin_lab.training import Engine, Task


@dataclass(frozen=True)
class Training:
    """Contains the components of a training run."""

    config: TrainConfig
    launch: Launch
    batching: Batching
    optimization: Optimization
    data: Data
    task: Task
    model: Model
    preprocessing: Preprocessing
    data_module: ImageData
    engine: Engine
    callbacks: tuple[Callback, ...]
    """The callbacks of the `callbacks` group."""
    evaluate_first: bool
    """Whether the loaded weights are evaluated before the first update."""

    @property
    def initial_lr(self) -> float:
        """Returns the peak learning rate at the run's global batch size."""
        return self.optimization.optimizer.scaled_lr(self.batching.global_batch)


def build_training(config: TrainConfig, launch: Launch, plain: dict[str, Any]) -> Training:
    """Builds the components of a training run; the cheapest checks come first.

    Args:
        config: conf/train.yaml.
        launch: devices and processes.
        plain: the same configuration as plain Python, which checkpoints contain.

    Raises:
        UserError: a key or value is invalid, or components do not fit each other.
    """
    for name, node in (config.logger or {}).items():
        check_keys(f"logger.{name}", node or {})
    check_config("model", config.model)
    if is_chosen(config.mixing) and "mixing" not in config.task:
        raise UserError(f"mixing is chosen, but {config.task.get('_target_')} does not mix images; set mixing=none")
    for name, node in (config.callbacks or {}).items():
        check_keys(f"callbacks.{name}", node or {})
    batching = split_batch(config.global_batch, launch.world_size, config.max_device_batch)
    optimization = build_optimization(config.optimizer, config.schedule, config.ema)
    settings = build_dataclass("transfer", TransferConfig, config.transfer)
    checkpoint = open_weights(config.weights, settings, config.model)
    data = build_data(config.data)
    check_sizes(data.source, batching)
    task = build_task(config.task, data.description)
    torch.manual_seed(config.seed)  # The initialisation must not depend on random numbers that the data has used.
    model = build_model(
        config.model,
        task,
        img_size=config.img_size,
        checkpoint=checkpoint,
        settings=settings,
        class_names=data.source.class_names if task.outputs_are_classes else None,
    )
    preprocessing = build_preprocessing(model, data, data.loader, config.preset)
    data_module = build_data_module(config, batching, data, preprocessing)
    metadata = Metadata(
        model=model.node,
        class_names=tuple(data.source.class_names) if task.outputs_are_classes else None,
        preprocessing=preprocessing,
        run=RunMetadata(precision=launch.precision, device_batch=batching.device_batch, config=plain),
    )
    engine = build_engine(config, batching, optimization, task, model, metadata)
    callbacks = build_callbacks(config.callbacks, engine.monitor, task.monitor.mode)
    evaluate_first = settings.evaluate_first and model.report is not None and model.report.keeps_all_classes
    components = (optimization, data, task, model, preprocessing, data_module, engine, callbacks)
    return Training(config, launch, batching, *components, evaluate_first)


def build_engine(
    config: TrainConfig, batching: Batching, optimization: Optimization, task: Task, model: Model, metadata: Metadata
) -> Engine:
    """Builds the LightningModule of a training run."""
    return Engine(
        model.network,
        task,
        metadata.as_dict(),
        optimizer=optimization.optimizer,
        schedule=optimization.schedule,
        ema=optimization.ema,
        global_batch=batching.global_batch,
        seed=config.seed,
    )


def build_data_module(config: TrainConfig, batching: Batching, data: Data, preprocessing: Preprocessing) -> ImageData:
    """Builds the LightningDataModule of a training run."""
    augmentation = build_augmentation(config.augment, preprocessing)
    return ImageData(
        data.source,
        train_transform(preprocessing, augmentation.image_transforms, augmentation.tensor_transforms),
        eval_transform(preprocessing),
        global_batch=batching.global_batch,
        device_batch=batching.device_batch,
        seed=config.seed,
        loading=data.loader,
    )


def check_sizes(source: ImageSource, batching: Batching) -> None:
    """Raises UserError if there are too few images for the batch or the devices."""
    train, val = len(source.train.labels), len(source.val.labels)
    if train == 0:
        raise UserError("data.val_only=true leaves no training images; remove it, or evaluate with eval.py")
    if train < batching.global_batch:
        raise UserError(f"global_batch={batching.global_batch} is larger than the {train} training images; lower it")
    if val < batching.devices:
        raise UserError(
            f"there are {val} validation images for {batching.devices} devices; provide more, or lower trainer.devices"
        )
