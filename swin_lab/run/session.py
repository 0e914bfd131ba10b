"""The objects of a training run that need its directory: Trainer, callbacks and loggers."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from swin_lab.data import cores
from swin_lab.interruption import Interruption
from swin_lab.report import shorter
from swin_lab.run.derived import attention_backend
from swin_lab.run.gallery import EvaluationGallery, InputGallery
from swin_lab.run.loggers import build_loggers, log_configuration
from swin_lab.run.preflight import EvaluationCheck
from swin_lab.run.recording import Recorder
from swin_lab.run.resume import read_position
from swin_lab.run.trainer import build_trainer
from swin_lab.run.training import Training
from swin_lab.training import (
    BackgroundIO,
    DataTimeMonitor,
    EpochSummary,
    LastCheckpoint,
    NonFiniteDumps,
    Position,
    PredictionCollector,
    ProgressBar,
    ProgressLines,
)

log = logging.getLogger("swin_lab")


@dataclass(frozen=True)
class Session:
    """Contains the objects that need a run directory."""

    run_dir: Path
    trainer: Trainer
    best: ModelCheckpoint
    nonfinite: NonFiniteDumps
    predictions: PredictionCollector


def start_session(
    training: Training,
    recorder: Recorder,
    interruption: Interruption,
    resumed: Position | None,
    write_settings: Callable[[], None],
) -> Session:
    """Builds callbacks, loggers and Trainer for a run directory, and logs what is known of the run.

    Args:
        training: the components of the run.
        recorder: keeps the record of the run.
        interruption: takes note of signals.
        resumed: where the run goes on. If None, it starts.
        write_settings: writes config.yaml and overrides.txt if they are missing.
    """
    config, batching, data_module = training.config, training.batching, training.data_module
    run_dir = recorder.identity.run_dir
    best = _best_checkpoint(training, run_dir)
    last = LastCheckpoint(
        run_dir / "checkpoints", training.checkpoint, interruption, read=read_position, write_settings=write_settings
    )
    nonfinite = NonFiniteDumps(run_dir, training.data.source.train.name)
    workers = data_module.workers_on(training.launch.devices_per_node)
    data_time = DataTimeMonitor(lambda: data_module.seconds_waited, f"{workers} workers, {cores()} cores")
    progress = ProgressBar() if rich.get_console().is_terminal else ProgressLines()
    recorder.loggers = loggers = build_loggers(config.logger, recorder.identity, resumed)
    predictions = PredictionCollector()
    galleries = [gallery(training.task, training.preprocessing, run_dir) for gallery in (InputGallery, EvaluationGallery)]
    checked = [EvaluationCheck(), best, last, nonfinite]
    measured = [EpochSummary(batching.device_batch * batching.devices), data_time, recorder]
    trainer = build_trainer(
        config.trainer,
        training.launch.precision,
        callbacks=[*checked, *measured, *galleries, predictions, progress, *training.callbacks],
        loggers=loggers,
        accumulate=batching.accumulate,
        evaluate_first=training.evaluate_first and resumed is None,
        plugins=[BackgroundIO()],
    )
    if trainer.is_global_zero:
        log_configuration(loggers, recorder.record.constants())
    return Session(run_dir, trainer, best, nonfinite, predictions)


def announce(training: Training) -> None:
    """Logs the values that were derived from the configuration."""
    network, source, trainer = training.model.network, training.data.source, training.launch.trainer
    parameters = sum(parameter.numel() for parameter in network.parameters())
    lines = [("model", f"{type(network).__name__}, {parameters:,} parameters")]
    if (lora := training.model.lora) is not None:
        trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        lines.append(("adapters", f"{lora}; {trained:,} parameters are trained ({trained / parameters:.1%})"))
    lines += training.model.report.lines() if training.model.report is not None else []
    train, val, classes = len(source.train.labels), len(source.val.labels), len(source.class_names)
    lines += [
        ("data", f"{train:,} training and {val:,} validation images, {classes} classes"),
        ("device", f"{trainer.num_devices} x {trainer.accelerator.name()}, precision {training.launch.precision}"),
        ("batch", str(training.batching)),
    ]
    if training.data_module.balance is not None:
        lines.append(("sampling", str(training.data_module.balance)))
    if training.data_module.progressive is not None:
        lines.append(("resizing", str(training.data_module.progressive)))
    if (attention := attention_backend(training)) is not None:
        lines.append(("attention", attention))
    lines += training.task.start_lines()
    optimizer = training.config.optimizer["_target_"].rpartition(".")[2]
    lines.append(("optimizer", f"{optimizer}, learning rate {training.initial_lr:.4g}"))
    if training.preprocessing.preset is not None:
        lines.append(("preset", str(training.preprocessing)))
    for label, text in lines:
        log.info("%-10s %s", label, text)


def _best_checkpoint(training: Training, run_dir: Path) -> "_BestCheckpoint":
    return _BestCheckpoint(
        dirpath=run_dir / "checkpoints",
        filename="best",
        monitor=training.engine.monitor,
        mode=training.task.monitor.mode,
        save_top_k=1,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


class _BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint; its state has another name than that of any checkpoint of the `callbacks` group."""

    @property
    def state_key(self) -> str:
        return f"{type(self).__name__}({self.filename})"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Someone may have moved the run directory; Lightning would then forget the best metric so far.
        name = Path(state_dict["best_model_path"]).name
        file = str(Path(str(self.dirpath)) / name) if name else ""
        if file and not Path(file).is_file():
            log.warning("%s is gone; the best evaluation from here on replaces it", shorter(Path(file)))
            state_dict, file = state_dict | {"best_model_score": None}, ""
        moved = {"dirpath": self.dirpath, "best_model_path": file, "kth_best_model_path": file}
        scores = {file: state_dict["best_model_score"]} if file else {}
        super().load_state_dict(state_dict | moved | {"best_k_models": scores})
