"""Evaluation of weights of any origin; the checkpoint of a run also names its data and its task."""

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import rich
from lightning import Callback
from lightning.pytorch.callbacks import RichProgressBar

from swin_lab.data import ImageData
from swin_lab.data.transforms import eval_transform
from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing
from swin_lab.report import print_evaluation
from swin_lab.run.arguments import Invocation
from swin_lab.run.components import Data, build_data, build_task, preset_settings
from swin_lab.run.directory import is_other_process, run_directory, start_console, timestamped
from swin_lab.run.guard import guarded
from swin_lab.run.identity import describe_data, identity
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.restore import Restored, merged, restore
from swin_lab.run.results import metric_formats, present
from swin_lab.run.settings import EvalConfig, RestoreConfig
from swin_lab.run.trainer import build_trainer, choose_precision
from swin_lab.run.trust import refuse_foreign_classes
from swin_lab.training import Engine, Task
from swin_lab.weights import Contents, read_source

log = logging.getLogger("swin_lab")

CLASSIFICATION = {"_target_": "swin_lab.tasks.Classification"}
"""The task for weights that were not written by a run."""
DEVICE_BATCH = 64
"""Images per device at once for weights that were not written by a run."""


def run(values: dict[str, Any], directory: Path | None, invocation: Invocation) -> dict[str, Any]:
    """Evaluates a checkpoint with a resolved configuration.

    Args:
        values: conf/eval.yaml, composed.
        directory: folder of the results. If None, a new one in the checkpoint's run directory.
        invocation: the command that started the evaluation.

    Returns:
        The contents of results.json.

    Raises:
        UserError: the checkpoint or the data cannot be used.
    """
    start_console(quiet=is_other_process())
    config = build_dataclass("", EvalConfig, values)
    settings = build_dataclass("transfer", RestoreConfig, config.transfer)
    contents = read_source(config.checkpoint)
    data, task = compose_evaluation(config, contents)
    restored = restore(contents, task, data.source.class_names, settings, trust=config.trust)
    preprocessing = choose_preprocessing(restored, config.preset)
    stored = contents.metadata.run if contents.metadata is not None else None
    data_module = build_data_module(data, preprocessing, config.batch or (stored.device_batch if stored else DEVICE_BATCH))
    wanted = str(config.precision or (stored.precision if stored is not None else "auto"))
    precision = choose_precision(wanted, str(config.trainer.get("accelerator", "auto")))
    bar: list[Callback] = [RichProgressBar()] if rich.get_console().is_terminal else []
    trainer = build_trainer(config.trainer, precision, callbacks=bar)
    engine = Engine(restored.network, task, {})
    with (
        run_directory(trainer, directory or _results_folder(config.out, contents.file), values, invocation.overrides) as folder,
        guarded(folder, trainer.world_size),
    ):
        for label, text in [*restored.report, ("preset", str(preprocessing))]:
            log.info("%-10s %s", label, text)
        trainer.validate(engine, data_module, verbose=False)
        skipped = len(data_module.skipped_everywhere())
        result: dict[str, Any] = {"metrics": dict(engine.result.metrics), "skipped": skipped}
        if trainer.is_global_zero:
            result |= record(config, contents, data, engine, preprocessing, folder)
            result |= (
                {"precision": precision, "overrides": list(invocation.overrides)}
                | present(task, engine.result, folder)
                | identity()
            )
            (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
            print_evaluation(result)
    return result


def compose_evaluation(config: EvalConfig, contents: Contents) -> tuple[Data, Task]:
    """Builds data and task: the given ones, else those of the checkpoint's run, changed by the given keys.

    Raises:
        UserError: the file does not name its data, or names a class that is not trusted.
    """
    stored = contents.metadata.run.config if contents.metadata is not None and contents.metadata.run is not None else {}
    given = config.data or {}
    data_node = given if "_target_" in given else merged(stored.get("data", {}), given)
    task_node = merged(stored.get("task", CLASSIFICATION), config.task)
    if "_target_" not in data_node:
        raise UserError(f"{contents.file.name} does not name its data; add data=folder data.root=... or another choice of data")
    if not config.trust:
        from_file = {} if "_target_" in given else {"data": data_node}
        refuse_foreign_classes(contents.file, from_file | ({} if "_target_" in config.task else {"task": task_node}))
    data = build_data(data_node)
    return data, build_task(task_node, data.description)


def build_data_module(data: Data, preprocessing: Preprocessing, device_batch: int) -> ImageData:
    """Builds the LightningDataModule of an evaluation."""
    return ImageData(
        data.source,
        None,
        eval_transform(preprocessing),
        global_batch=1,
        device_batch=device_batch,
        seed=0,
        loading=data.loader,
    )


def choose_preprocessing(restored: Restored, preset: str | None) -> Preprocessing:
    """Returns the checkpoint's own preprocessing, or that of a preset.

    Raises:
        UserError: the preset is unknown, or not for this network.
    """
    if preset is None:
        return restored.preprocessing
    return Preprocessing.from_dict(restored.preprocessing.as_dict() | preset_settings(preset, restored.network))


def record(
    config: EvalConfig, contents: Contents, data: Data, engine: Engine, preprocessing: Preprocessing, folder: Path
) -> dict[str, Any]:
    """Returns the contents of results.json except the metrics."""
    return {
        "checkpoint": str(contents.file),
        "run_dir": str(folder),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "task": type(engine.task).__name__,
        "task_settings": {key: value for key, value in config.task.items() if value is not None},
        "monitor": {"metric": engine.monitor, "mode": engine.task.monitor.mode},
        "metric_formats": metric_formats(engine.task, engine.result.metrics),
        "images": engine.result.num_images,
        "preprocessing": preprocessing.as_dict() | {"description": str(preprocessing)},
        "data": describe_data(data.source),
    }


def _results_folder(out: str | None, file: Path) -> Path:
    if out is not None:
        return Path(out).expanduser().absolute()
    run_dir = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    return timestamped(run_dir, "eval_")
