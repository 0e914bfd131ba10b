"""Training: compose, check, create the run directory, fit, evaluate the best checkpoint, record."""

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import rich
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from swin_lab.data import cores
from swin_lab.ops.window_attention import training_backend
from swin_lab.report import print_training
from swin_lab.run.arguments import Invocation
from swin_lab.run.directory import is_other_process, run_directory, run_folder, start_console, timestamped
from swin_lab.run.guard import guarded
from swin_lab.run.identity import describe_data, identity
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.loggers import build_loggers, close, log_configuration
from swin_lab.run.results import metric_formats
from swin_lab.run.settings import TrainConfig
from swin_lab.run.trainer import build_trainer, find_launch
from swin_lab.run.training import Training, build_training
from swin_lab.run.trust import needs_trust
from swin_lab.training import DataTimeMonitor, EpochSummary, EvaluationResult, ProgressBar, ProgressLines

log = logging.getLogger("swin_lab")


def run(values: dict[str, Any], directory: Path | None, invocation: Invocation) -> dict[str, Any]:
    """Trains a model with a resolved configuration.

    Args:
        values: conf/train.yaml, composed.
        directory: the run directory. If None, a new one under out/name.
        invocation: the command that started the run.

    Returns:
        The contents of results.json; in the further processes of a run, only the metrics.

    Raises:
        UserError: the configuration is invalid, or the run cannot continue for a reason that its user can fix.
        KeyboardInterrupt: after Ctrl-C.
    """
    started_at = perf_counter()
    start_console(quiet=is_other_process())
    config = build_dataclass("", TrainConfig, values)
    folder = run_folder(config.out, config.name)
    seed_everything(config.seed, verbose=False)
    launch = find_launch(config.trainer, config.precision)
    training = build_training(config, launch, values)
    trust = " trust=true" if needs_trust({"model": training.model.node, "data": config.data, "task": config.task}) else ""
    eval_command = invocation.eval_command + trust
    with (
        run_directory(launch.trainer, directory or timestamped(folder), values, invocation.overrides) as run_dir,
        guarded(run_dir, launch.world_size),
    ):
        session = start_session(training, run_dir, values)
        announce(training)
        try:
            session.trainer.fit(training.engine, training.data_module)
            last = training.engine.result
            evaluate_best(session, training)
            result = {
                "metrics": dict(training.engine.result.metrics),
                "skipped": len(training.data_module.skipped_everywhere()),
            }
            if session.trainer.is_global_zero:
                result |= record(session, training, run_dir, last)
                result |= {"overrides": list(invocation.overrides), "eval_command": eval_command}
                result |= {"wall_seconds": perf_counter() - started_at} | identity()
                (run_dir / "results.json").write_text(json.dumps(result, indent=2) + "\n")
                print_training(result, eval_command)
        finally:
            close(session.trainer.loggers)
    return result


@dataclass(frozen=True)
class Session:
    """Contains the objects that need a run directory."""

    trainer: Trainer
    best: ModelCheckpoint
    last: ModelCheckpoint
    epoch_summary: EpochSummary
    data_time: DataTimeMonitor


def start_session(training: Training, run_dir: Path, plain: dict[str, Any]) -> Session:
    """Builds callbacks, loggers and Trainer for a run directory, and logs the hyper-parameters."""
    config, batching, data_module = training.config, training.batching, training.data_module
    monitor, mode = training.engine.monitor, training.task.monitor.mode
    best = _checkpoint(run_dir, "best", monitor, mode)
    last = _checkpoint(run_dir, "last", None, "min")
    epoch_summary = EpochSummary(batching.device_batch * batching.devices)
    workers = data_module.workers_on(training.launch.devices_per_node)
    data_time = DataTimeMonitor(lambda: data_module.seconds_waited, f"{workers} workers, {cores()} cores")
    progress = ProgressBar() if rich.get_console().is_terminal else ProgressLines()
    loggers = build_loggers(config.logger, run_dir, config.name)
    trainer = build_trainer(
        config.trainer,
        training.launch.precision,
        callbacks=[best, last, epoch_summary, data_time, progress, *training.callbacks],
        loggers=loggers,
        accumulate=batching.accumulate,
        evaluate_first=training.evaluate_first,
    )
    log_configuration(loggers, plain)
    return Session(trainer, best, last, epoch_summary, data_time)


def announce(training: Training) -> None:
    """Logs the values that were derived from the configuration."""
    network, source, trainer = training.model.network, training.data.source, training.launch.trainer
    parameters = sum(parameter.numel() for parameter in network.parameters())
    lines = [("model", f"{type(network).__name__}, {parameters:,} parameters")]
    lines += training.model.report.lines() if training.model.report is not None else []
    train, val, classes = len(source.train.labels), len(source.val.labels), len(source.class_names)
    lines += [
        ("data", f"{train:,} training and {val:,} validation images, {classes} classes"),
        ("device", f"{trainer.num_devices} x {trainer.accelerator.name()}, precision {training.launch.precision}"),
        ("batch", str(training.batching)),
    ]
    if "attention_backend" in training.model.node:
        device = trainer.strategy.root_device.type
        lines.append(("attention", training_backend(training.model.node["attention_backend"], device)))
    optimizer = training.config.optimizer["_target_"].rpartition(".")[2]
    lines.append(("optimizer", f"{optimizer}, learning rate {training.initial_lr:.4g}"))
    if training.preprocessing.preset is not None:
        lines.append(("preset", str(training.preprocessing)))
    for label, text in lines:
        log.info("%-10s %s", label, text)


def evaluate_best(session: Session, training: Training) -> None:
    """Evaluates the best checkpoint with the code of eval.py. If no epoch was evaluated, evaluates the last weights."""
    best = session.best.best_model_path or None
    if best is None:
        log.warning("training ended before its first evaluation: these are the metrics of the last weights")
        session.trainer.save_checkpoint(f"{session.last.dirpath}/last.ckpt")
    session.trainer.validate(training.engine, training.data_module, ckpt_path=best, verbose=False, weights_only=True)


def record(session: Session, training: Training, run_dir: Path, last: EvaluationResult) -> dict[str, Any]:
    """Returns the contents of results.json except the metrics.

    Args:
        session: the finished run.
        training: its components.
        run_dir: the run directory.
        last: the result of the last evaluation during the training.
    """
    return {
        "name": training.config.name,
        "run_dir": str(run_dir),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "task": type(training.task).__name__,
        "monitor": {"metric": training.engine.monitor, "mode": training.task.monitor.mode},
        "metric_formats": metric_formats(training.task, training.engine.result.metrics),
        "initial_metrics": training.engine.initial_metrics,
        "images": training.engine.result.num_images,
        "preprocessing": training.preprocessing.as_dict() | {"description": str(training.preprocessing)},
        "best_epoch": training.engine.result.epoch,
        "last_evaluation": {"epoch": last.epoch, "metrics": dict(last.metrics)} if last.epoch is not None else None,
        "epochs": session.trainer.current_epoch,
        "updates": session.trainer.global_step,
        "images_per_second": session.epoch_summary.images_per_second,
        "data_time": session.data_time.share,
        "parameters": sum(parameter.numel() for parameter in training.model.network.parameters()),
        "precision": training.launch.precision,
        "compile": training.config.compile,
        "batching": str(training.batching),
        "data": describe_data(training.data.source),
    }


class _RunCheckpoint(ModelCheckpoint):
    """A checkpoint of the run, whose state has another name than that of any checkpoint of the `callbacks` group."""

    @property
    def state_key(self) -> str:
        return f"{type(self).__name__}({self.filename})"


def _checkpoint(run_dir: Path, filename: str, monitor: str | None, mode: str) -> ModelCheckpoint:
    return _RunCheckpoint(
        dirpath=run_dir / "checkpoints",
        filename=filename,
        monitor=monitor,
        mode=mode,
        save_top_k=1,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )
