"""The components of a training run, built and checked before the run directory exists."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning import Callback
from torch import nn

from swin_lab.data import ImageData
from swin_lab.data.crops import crop_decoder
from swin_lab.data.decoders import build_decoder
from swin_lab.data.transforms import eval_transform, train_transform
from swin_lab.errors import UserError
from swin_lab.metadata import Metadata, RunMetadata
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.augmentation import build_augmentation
from swin_lab.run.batching import AUTO, Batching, split_batch
from swin_lab.run.compilation import compiler
from swin_lab.run.components import (
    Data,
    Optimization,
    build_callbacks,
    build_data,
    build_optimization,
    build_preprocessing,
    build_task,
    check_sizes,
)
from swin_lab.run.constant_weights import constant_weights
from swin_lab.run.device_batch import build_trial, find_batching
from swin_lab.run.instantiate import build_dataclass, check_node, is_chosen
from swin_lab.run.loggers import check_loggers
from swin_lab.run.lora import check_model
from swin_lab.run.model import Model, build_model, open_weights
from swin_lab.run.settings import TrainConfig, TransferConfig
from swin_lab.run.sharding import sharder
from swin_lab.run.teacher import check_teacher, with_teacher
from swin_lab.run.together import check_together
from swin_lab.run.trainer import Launch
from swin_lab.training import CheckpointConfig, Engine, NonFiniteConfig, Task


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
    checkpoint: CheckpointConfig
    """When the last checkpoint is saved."""
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
    check_nodes(config)
    mixes = is_chosen("mixing", config.mixing)
    batching = split_batch(config.global_batch, launch.world_size, config.max_device_batch, mixes=mixes)
    saving = build_dataclass("checkpoint", CheckpointConfig, config.checkpoint)
    optimization = build_optimization(config.optimizer, config.schedule, config.ema)
    # It raises its errors before the data is read.
    compile_network = compiler(config.compile, config.compile_mode, launch.trainer.strategy.root_device.type)
    settings = build_dataclass("transfer", TransferConfig, config.transfer)
    checkpoint = open_weights(config.weights, settings, config.model)
    check_teacher(config.task)
    data = build_data(config.data)
    check_sizes(data.source, batching, config.trainer)
    task = build_task(config.task, data.description)
    torch.manual_seed(config.seed)  # The initialisation must not depend on random numbers that the data has used.
    names = tuple(data.source.class_names) if task.outputs_are_classes else None
    model = build_model(
        config.model, task, img_size=config.img_size, checkpoint=checkpoint, settings=settings, class_names=names
    )
    preprocessing = build_preprocessing(model, data, data.loader, config.preset)
    task, network = with_teacher(task, model.network, preprocessing, data.source.class_names, compile_network)
    model = replace(model, network=network)
    if config.max_device_batch == AUTO:
        trial = build_trial(launch, optimization, data, task, model.network, preprocessing, config.global_batch)
        batching = find_batching(trial, launch, mixes=mixes)
        check_sizes(data.source, batching, config.trainer)
        plain = plain | {"max_device_batch": batching.device_batch}
    data_module = build_data_module(config, batching, data, task, preprocessing)
    metadata = Metadata(
        model=model.described,
        class_names=names,
        preprocessing=preprocessing,
        run=RunMetadata(precision=launch.precision, device_batch=batching.device_batch, config=described(plain, task)),
    )
    engine = build_engine(config, launch, batching, optimization, task, model, metadata, compile_network)
    callbacks = build_callbacks(config.callbacks, task, optimization.ema is not None)
    check_together(callbacks, config, launch, optimization, model.network, data_module, preprocessing.channels)
    evaluate_first = settings.evaluate_first and model.report is not None and model.report.keeps_all_classes
    components = (optimization, data, task, model, preprocessing, data_module, engine, callbacks, saving)
    return Training(config, launch, batching, *components, evaluate_first)


def described(plain: dict[str, Any], task: Task) -> dict[str, Any]:
    """Returns the configuration for checkpoints, which contains what the task has computed of the training images."""
    computed = dict(task.computed_arguments())
    return plain | {"task": plain["task"] | computed} if computed else plain


def check_nodes(config: TrainConfig) -> None:
    """Checks what can be checked before any component is built.

    Raises:
        UserError: a key of the model, of a logger or of a callback is unknown, or a value is invalid, or nothing mixes images.
    """
    check_model(config.model)
    check_loggers(config.logger)
    for name, node in (config.callbacks or {}).items():
        if node is not None:
            check_node(f"callbacks.{name}", node, provided=("monitor", "mode"), kind=Callback)
    if is_chosen("mixing", config.mixing) and "mixing" not in config.task:
        raise UserError(f"mixing is chosen, but {config.task.get('_target_')} does not mix images; set mixing=none")


def build_engine(
    config: TrainConfig,
    launch: Launch,
    batching: Batching,
    optimization: Optimization,
    task: Task,
    model: Model,
    metadata: Metadata,
    compile_network: Callable[[nn.Module], None] | None,
) -> Engine:
    """Builds the LightningModule of a training run."""
    shard = sharder(launch.trainer)
    return Engine(
        model.network,
        task,
        metadata.as_dict(),
        optimizer=optimization.optimizer,
        schedule=optimization.schedule,
        ema=optimization.ema,
        global_batch=batching.global_batch,
        seed=config.seed,
        compile_network=compile_network,
        constant_weights=constant_weights(config.compile, sharded=shard is not None, adapted=model.lora is not None),
        nonfinite=NonFiniteConfig(policy=config.on_nonfinite, limit=config.nonfinite_limit),
        shard=shard,
    )


def build_data_module(
    config: TrainConfig, batching: Batching, data: Data, task: Task, preprocessing: Preprocessing
) -> ImageData:
    """Builds the LightningDataModule of a training run."""
    augmentation = build_augmentation(config.augment, preprocessing)
    images = augmentation.image_transforms
    decode, train_decode = build_decoder(preprocessing, data.loader.decoder), None
    if data.loader.cache != "device":  # whose images are whole
        train_decode = crop_decoder(next(iter(images), None), decode, reduced=data.loader.decode_size == "crop")
    transform = train_transform(preprocessing, images[train_decode is not None :], augmentation.tensor_transforms)
    return ImageData(
        data.source,
        transform,
        eval_transform(preprocessing),
        global_batch=batching.global_batch,
        device_batch=batching.device_batch,
        seed=config.seed,
        loading=data.loader,
        decode=decode,
        train_decode=train_decode,
        img_size=preprocessing.img_size,
        draw=task.draw,
    )
