"""Writes the record of a training run while it goes on: at its start, after every validation and at its end."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache, partial
from time import perf_counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn

from swin_lab.record import RESULTS, Predictions, Record, RunState, State
from swin_lab.run.arguments import Invocation
from swin_lab.run.dashboards import end_dashboards
from swin_lab.run.derived import constants_of, formats_of
from swin_lab.run.directory import write_whole
from swin_lab.run.ending import StoppedRunError
from swin_lab.run.identity import RunIdentity
from swin_lab.run.instantiate import first_line
from swin_lab.run.memory import peak_memory
from swin_lab.run.training import Training
from swin_lab.run.trust import needs_trust
from swin_lab.training import FINAL, VAL, DataTimeMonitor, Engine, EpochSummary, EvaluationResult

INITIAL, LAST, BEST = "initial", "last", "best"
"""Weights whose metrics are recorded, besides those of the final evaluation."""


class Recorder(Callback):
    """Keeps the record of a run; the first process writes it.

    Args:
        training: the components of the run.
        identity: names the run.
        values: the resolved configuration.
        invocation: the command that started the run.
        started_at: when that was, as `perf_counter` tells it.
    """

    def __init__(
        self, training: Training, identity: RunIdentity, values: Mapping[str, Any], invocation: Invocation, started_at: float
    ) -> None:
        self.training = training
        self.identity = identity
        self.invocation = invocation
        self.metrics: dict[str, Any] = {}
        """WEIGHTS.METRIC -> value."""
        self.predictions = Predictions()
        earlier = identity.earlier or {}
        self._constants = cache(partial(constants_of, training, values, invocation.overrides))
        self._started_at = started_at
        self._seconds_before = float(earlier.get("run.wall_seconds", 0.0))
        self._attempts = identity.attempts + 1
        self.loggers: Sequence[Logger] = ()
        """Those that are told of the end."""
        self._started = str(earlier.get("run.started", _now()))
        self._trainer: Trainer | None = None
        self._epochs = int(earlier.get("run.epochs", 0))
        self._state: tuple[State, str | None] = "running", None

    @property
    def record(self) -> Record:
        """Returns the record of the run as it is now."""
        names = {key.partition(".")[2] for key in self.metrics}
        formats = formats_of(self.training.task, dict.fromkeys(names))
        return Record(
            run=self._run_state(), formats=formats, metrics=self.metrics, predictions=self.predictions, **self._constants()
        )

    def _run_state(self) -> RunState:
        training, trainer, identity = self.training, self._trainer, self.identity
        speed = wait = None
        for callback in [] if trainer is None else trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EpochSummary):
                speed = callback.images_per_second
            elif isinstance(callback, DataTimeMonitor):
                wait = callback.share
        device = training.launch.trainer.strategy.root_device
        trust = " trust=true" * needs_trust(
            {"model": training.model.node, "data": training.config.data, "task": training.config.task}
        )
        sweep, (state, reason) = identity.sweep, self._state
        return RunState(
            name=identity.name,
            id=identity.id,
            directory=str(identity.run_dir),
            group=identity.group,
            group_directory=None if sweep is None else str(sweep.folder),
            job=None if sweep is None else sweep.job,
            differs=() if sweep is None else sweep.differs,
            state=state,
            reason=reason,
            started=self._started,
            updated=_now(),
            ended=None if state == "running" else _now(),
            attempts=self._attempts,
            wall_seconds=self._seconds_before + perf_counter() - self._started_at,
            epochs=self._epochs,
            updates=0 if trainer is None else trainer.global_step,
            images_per_second=speed,
            data_wait_share=wait,
            peak_host_bytes=peak_memory(),
            peak_device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            images=training.engine.result.num_images,
            skipped_images=len(training.data_module.skipped),
            skipped_updates=training.engine.guard.skipped,
            eval_command=self.invocation.eval_command + trust,
        )

    def write(self) -> None:
        """Writes results.json, in the first process."""
        if self.training.launch.trainer.is_global_zero:
            write_whole(self.identity.run_dir / RESULTS, json.dumps(self.record.flat(), indent=2, allow_nan=False) + "\n")

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records how the run ends."""
        try:
            yield
        except BaseException as error:
            self._state = _state_after(error)
            with suppress(Exception):  # Whatever has ended the run, such as a full disk, is what is reported.
                self.write()
            raise
        finally:
            if self.loggers and self.training.launch.trainer.is_global_zero:
                end_dashboards(self.loggers, self.record.flat())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epochs = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epochs = trainer.current_epoch + 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Engine)
        if trainer.state.fn != TrainerFn.FITTING:
            return
        result = pl_module.result
        if trainer.sanity_checking:
            self._take(INITIAL, {name: value for name, value in result.metrics.items() if name.startswith(f"{VAL}/")}, 0)
        else:
            self._epochs = trainer.current_epoch + int(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)
            self._take(LAST, result.metrics, result.epoch)
            if self._is_best(result, pl_module.monitor):
                self._take(BEST, result.metrics, result.epoch)
        self.write()

    def finish(self, result: EvaluationResult) -> None:
        """Records the final evaluation and the end of the run."""
        of, epoch = (LAST, self.training.engine.trainer.current_epoch) if result.epoch is None else (BEST, result.epoch)
        self._take(FINAL[VAL], result.metrics, epoch)
        self.metrics[f"{FINAL[VAL]}.of"] = of
        self._state = "finished", None
        self.write()

    def _is_best(self, result: EvaluationResult, monitor: str) -> bool:
        prefix, _, metric = monitor.partition("/")
        before = self.metrics.get(f"{_weights(BEST, prefix)}.{metric}")
        value = result.metrics[monitor]
        return before is None or (value > before if self.training.task.monitor.mode == "max" else value < before)

    def _take(self, weights: str, metrics: Mapping[str, float], epoch: int | None) -> None:
        for name, value in metrics.items():
            prefix, _, metric = name.partition("/")
            self.metrics[f"{_weights(weights, prefix)}.{metric}"] = value
        self.metrics |= {f"{_weights(weights, prefix)}.epoch": epoch for prefix in {name.partition("/")[0] for name in metrics}}

    def state_dict(self) -> dict[str, Any]:
        return {"metrics": dict(self.metrics)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._trainer is None or self._trainer.state.fn != TrainerFn.FITTING:
            return  # The best checkpoint is evaluated at the end; its run had come less far.
        self.metrics = {key: value for key, value in state_dict["metrics"].items() if not key.startswith(FINAL[VAL])}


def _weights(weights: str, prefix: str) -> str:
    return weights if prefix == VAL else f"{weights}_ema"


def _state_after(error: BaseException) -> tuple[State, str]:
    """Returns how a run has ended that an error has ended."""
    if isinstance(error, StoppedRunError):
        return "interrupted", error.signal
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "SIGINT"
    return "failed", first_line(error)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
