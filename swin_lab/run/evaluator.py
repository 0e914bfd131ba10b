"""The parts of an evaluation, built from its configuration and what the checkpoint names."""

from collections.abc import Callable

import rich
from lightning import Trainer
from torch import nn

from swin_lab.data import ImageData
from swin_lab.data.decoders import build_decoder
from swin_lab.data.transforms import eval_transform
from swin_lab.errors import UserError
from swin_lab.models import packed_weights
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.compilation import compiler
from swin_lab.run.components import Data, build_data, build_task, preset_settings
from swin_lab.run.restore import Restored
from swin_lab.run.settings import EvalConfig
from swin_lab.run.sharding import sharder
from swin_lab.run.stored import restored_node
from swin_lab.run.targets import TARGET
from swin_lab.run.thresholds import default_task, with_thresholds
from swin_lab.run.trainer import build_trainer, check_launch, choose_precision
from swin_lab.training import Engine, PredictionCollector, ProgressBar, ProgressLines, Task
from swin_lab.training.sharding import gathered
from swin_lab.weights import Contents, open_checkpoint


def build_compiler(config: EvalConfig, trainer: Trainer) -> Callable[[nn.Module], None] | None:
    """Returns what compiles the network on the device of the evaluation; raises UserError if it has no effect there."""
    device = trainer.strategy.root_device.type
    return compiler(config.compile, config.compile_mode, device, freeze=device == "cpu")


def build_engine(
    config: EvalConfig, trainer: Trainer, network: nn.Module, task: Task, compile_network: Callable[[nn.Module], None] | None
) -> Engine:
    """Builds the LightningModule of an evaluation."""
    shard = sharder(trainer)
    constant = gathered if shard else None if config.compile else packed_weights
    return Engine(network, task, {}, compile_network=compile_network, constant_weights=constant, shard=shard)


def build_evaluator(config: EvalConfig, contents: Contents, collector: PredictionCollector) -> tuple[Trainer, str]:
    """Builds Lightning's Trainer and returns it with the precision: the given one, else that of the checkpoint's run.

    Raises:
        UserError: Lightning refuses a value, or the devices do not exist.
    """
    stored = contents.metadata.run if contents.metadata is not None else None
    wanted = str(config.precision or (stored.precision if stored is not None else "auto"))
    precision = choose_precision(wanted, str(config.trainer.get("accelerator", "auto")))
    progress = ProgressBar() if rich.get_console().is_terminal else ProgressLines()
    trainer = build_trainer(config.trainer, precision, callbacks=[collector, progress])
    check_launch(config.trainer, trainer)
    return trainer, precision


def compose_evaluation(config: EvalConfig, contents: Contents) -> tuple[Data, Task]:
    """Builds data and task: the given ones, else those of the checkpoint's run, changed by the given keys.

    Raises:
        UserError: the file does not name its data, or asks for more than a file may without trust=true.
    """
    data_node = restored_node(contents, "data", config.data, {}, trust=config.trust)
    changes = {key: value for key, value in config.task.items() if value is not None}
    task_node = restored_node(contents, "task", changes, default_task(contents), trust=config.trust)
    if TARGET not in data_node:
        given = config.transfer  # A file without any network is refused as such.
        open_checkpoint(contents, name=given["name"], img_size=given["img_size"], window_size=given["window_size"])
        raise UserError(f"{contents.file.name} does not name its data; add data=folder data.root=... or another choice of data")
    try:
        data = build_data(data_node)
    except UserError as error:
        if TARGET in (config.data or {}):
            raise
        hint = "\nA checkpoint does not download data by itself; add +data.download=true, or data=... of your own"
        raise UserError(f"{contents.file.name}: {error}" + hint * (data_node.get("download") is False)) from error
    return data, build_task(with_thresholds(task_node, contents, data.source.class_names), data.description)


def build_data_module(data: Data, task: Task, preprocessing: Preprocessing, device_batch: int) -> ImageData:
    """Builds the LightningDataModule of an evaluation."""
    return ImageData(
        data.source,
        None,
        eval_transform(preprocessing),
        global_batch=1,
        device_batch=device_batch,
        seed=0,
        loading=data.loader,
        decode=build_decoder(preprocessing, data.loader.decoder),
        img_size=preprocessing.img_size,
        draw=task.draw,
    )


def choose_preprocessing(restored: Restored, preset: str | None) -> Preprocessing:
    """Returns the checkpoint's own preprocessing, or that of a preset.

    Raises:
        UserError: the preset is unknown, or not for this network.
    """
    if preset is None:
        return restored.preprocessing
    return Preprocessing.from_dict(restored.preprocessing.as_dict() | preset_settings(preset, restored.network))
