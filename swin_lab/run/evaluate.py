"""Evaluation of weights of any origin; the checkpoint of a run also names its data and its task."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import rich
from lightning import Trainer
from torch import nn

from swin_lab.data import ImageData
from swin_lab.data.decoders import build_decoder
from swin_lab.data.transforms import eval_transform
from swin_lab.errors import UserError
from swin_lab.metadata import RunMetadata
from swin_lab.models import packed_weights
from swin_lab.preprocessing import Preprocessing
from swin_lab.record import RESULTS, Predictions, flat
from swin_lab.report import print_evaluation
from swin_lab.run.arguments import Invocation
from swin_lab.run.compilation import compiler
from swin_lab.run.components import Data, build_data, build_task, check_validation_images, preset_settings
from swin_lab.run.directory import is_other_process, run_directory, start_console, timestamped, write_whole
from swin_lab.run.evaluation_figures import draw_evaluation
from swin_lab.run.guard import guarded
from swin_lab.run.identity import hardware
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.predictions import write_predictions
from swin_lab.run.restore import Restored, restore
from swin_lab.run.results import evaluation_record, present
from swin_lab.run.settings import EvalConfig, RestoreConfig
from swin_lab.run.sharding import sharder
from swin_lab.run.stored import images_at_once, restored_node
from swin_lab.run.targets import TARGET
from swin_lab.run.thresholds import default_task, with_thresholds
from swin_lab.run.trainer import build_trainer, check_launch, choose_precision
from swin_lab.run.watch import Watch
from swin_lab.training import Engine, PredictionCollector, ProgressBar, ProgressLines, Task
from swin_lab.training.sharding import gathered
from swin_lab.weights import Contents, open_checkpoint, read_source

log = logging.getLogger("swin_lab")


def run(values: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    """Evaluates a checkpoint with a resolved configuration.

    Args:
        values: conf/eval.yaml, composed.
        invocation: the command that started the evaluation.

    Returns:
        The contents of results.json.

    Raises:
        UserError: the checkpoint or the data cannot be used.
    """
    start_console(quiet=is_other_process())
    config = build_dataclass("", EvalConfig, values)
    settings = build_dataclass("transfer", RestoreConfig, config.transfer)
    compiler(config.compile, config.compile_mode)  # raises its errors before a file is read
    contents = read_source(config.checkpoint)
    stored = contents.metadata.run if contents.metadata is not None else None
    collector = PredictionCollector()
    trainer, precision = build_evaluator(config, stored, collector)
    compile_network = build_compiler(config, trainer)
    data, task = compose_evaluation(config, contents)
    check_validation_images(data.source, trainer.world_size)
    restored = restore(contents, task, data.source.class_names, settings, trust=config.trust)
    preprocessing = choose_preprocessing(restored, config.preset)
    device_batch = images_at_once(config.batch, contents, preprocessing, trust=config.trust)
    data_module = build_data_module(data, task, preprocessing, device_batch)
    engine = build_engine(config, trainer, restored.network, task, compile_network)
    wanted = _results_folder(config.out, contents.file)
    with (
        Watch(trainer, config.rank_timeout) as watch,
        run_directory(watch, wanted, values, invocation.overrides) as folder,
        guarded(folder, watch),
    ):
        for label, text in [*restored.report, ("preset", str(preprocessing))]:
            log.info("%-10s %s", label, text)
        watch.start(trainer)
        trainer.validate(engine, data_module, verbose=False)
        data_module.skipped |= data_module.skipped_everywhere()
        if not trainer.is_global_zero:
            return {}
        record = evaluation_record(contents.file, folder, engine, data_module, preprocessing)
        record |= {"overrides": list(invocation.overrides), "config": values, "hardware": asdict(hardware(trainer))}
        record["derived"] |= {"precision": precision}
        record["predictions"] = asdict(save_predictions(config, collector, data, record["data"]["val_fingerprint"], folder))
        record |= draw_evaluation(engine, collector.columns, data_module, preprocessing, folder)
        written = flat(record | present(task, engine.result, folder))
        write_whole(folder / RESULTS, json.dumps(written, indent=2, allow_nan=False) + "\n")
        print_evaluation(written)
    return written


def save_predictions(
    config: EvalConfig, collector: PredictionCollector, data: Data, fingerprint: str, folder: Path
) -> Predictions:
    """Writes the predictions of an evaluation, if that is wanted, and returns what its record names."""
    weights: Literal["raw", "ema"] = "ema" if config.transfer["ema"] else "raw"
    return (
        write_predictions(collector.columns, data.source, fingerprint, weights, folder)
        if config.save_predictions
        else Predictions()
    )


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


def build_evaluator(config: EvalConfig, stored: RunMetadata | None, collector: PredictionCollector) -> tuple[Trainer, str]:
    """Builds Lightning's Trainer and returns it with the precision: the given one, else that of the checkpoint's run.

    Raises:
        UserError: Lightning refuses a value, or the devices do not exist.
    """
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


def _results_folder(out: str | None, file: Path) -> Path:
    if out is not None:
        return Path(out).expanduser().absolute()
    run_dir = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    return timestamped(run_dir, "eval_")
