"""Training: compose, check, create the run directory, fit, evaluate the best checkpoint, record."""

import json
import logging
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning import seed_everything

from swin_lab.data.sampling import Start
from swin_lab.interruption import Interruption
from swin_lab.report import print_training, shorter
from swin_lab.run.arguments import Invocation
from swin_lab.run.batching import AUTO
from swin_lab.run.directory import (
    is_other_process,
    restore_settings,
    run_directory,
    run_folder,
    start_console,
    timestamped,
    write_whole,
)
from swin_lab.run.early_end import continuation, explained, stop_early
from swin_lab.run.failures import explained_failures
from swin_lab.run.guard import guarded
from swin_lab.run.identity import describe_data, identity
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.preflight import check_needs, needs_of
from swin_lab.run.results import metric_formats
from swin_lab.run.resume import RESULTS, Resumption, check_changes, find_resumption
from swin_lab.run.resumed import beginning, check_agreed, resumed_position, with_found_batch
from swin_lab.run.session import Session, announce, start_session
from swin_lab.run.settings import TrainConfig
from swin_lab.run.trainer import Launch, find_launch
from swin_lab.run.training import Training, build_training
from swin_lab.run.trust import needs_trust
from swin_lab.run.watch import Watch
from swin_lab.training import EvaluationResult

log = logging.getLogger("swin_lab")


def run(values: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    """Trains a model with a resolved configuration.

    Args:
        values: conf/train.yaml, composed.
        invocation: the command that started the run.

    Returns:
        The contents of results.json; in the further processes of a run, only the metrics.

    Raises:
        UserError: the configuration is invalid, or the run cannot continue for a reason that its user can fix.
        StoppedRunError: a signal has ended the run, after its checkpoint was saved.
        LostRankError: another process of the run did not arrive; the watch ends this one later if another is lost.
        KeyboardInterrupt: after the second Ctrl-C.
    """
    started_at = perf_counter()
    start_console(quiet=is_other_process())
    config, values, resumption = compared(values)
    seed_everything(config.seed, verbose=False)
    launch = find_launch(config.trainer, config.precision)
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption(earlier=invocation.interruption))
        watch = stack.enter_context(Watch(launch.trainer, config.rank_timeout))
        stop_early(interruption, watch.world_size)
        training, values = built(config, launch, values)
        stop_early(interruption, watch.world_size)
        folder = run_folder(config.out, config.name)
        wanted = resumption.run_dir if resumption is not None else timestamped(folder)
        run_dir = stack.enter_context(
            run_directory(watch, wanted, values, invocation.overrides, resumes=resumption is not None)
        )
        stack.enter_context(guarded(run_dir, watch, invocation.train_command))
        watch.advice = lambda: continuation(run_dir, invocation)
        write_again = partial(restore_settings, run_dir, values, invocation.overrides)
        resumed = resumed_position(resumption, first=watch.rank == 0)
        session = start_session(training, run_dir, values, interruption, resumed, write_again)
        announce(training)
        watch.start(session.trainer)
        check_agreed(resumed, watch.shared("beginning", lambda: beginning(resumed)))
        with explained(session, invocation):
            result = complete(session, training, resumption, invocation)
            if session.trainer.is_global_zero:
                result |= {"wall_seconds": perf_counter() - started_at} | identity()
                write_whole(run_dir / RESULTS, json.dumps(result, indent=2) + "\n")
                print_training(result, result["eval_command"])
    return result


def complete(session: Session, training: Training, resumption: Resumption | None, invocation: Invocation) -> dict[str, Any]:
    """Trains to the end and evaluates the best checkpoint; returns the contents of results.json except times and versions."""
    config = training.config
    last = train(session, training, resumption)
    evaluate_best(session, training)
    result: dict[str, Any] = {
        "metrics": dict(training.engine.result.metrics),
        "skipped": len(training.data_module.skipped_everywhere()),
    }
    if session.trainer.is_global_zero:
        trust = " trust=true" * needs_trust({"model": training.model.node, "data": config.data, "task": config.task})
        result |= record(session, training, last)
        result |= {"overrides": list(invocation.overrides), "eval_command": invocation.eval_command + trust}
    return result


def compared(values: dict[str, Any]) -> tuple[TrainConfig, dict[str, Any], Resumption | None]:
    """Checks a configuration, also against that of the run that it resumes.

    Returns:
        The configuration, the same as plain Python, and the resumed run, if there is one.
    """
    config = build_dataclass("", TrainConfig, values)
    resumption = find_resumption(config.resume, run_folder(config.out, config.name))
    if resumption is None:
        return config, values, None
    values = with_found_batch(resumption, values)
    config = build_dataclass("", TrainConfig, values)
    if not is_other_process():
        check_changes(resumption, values, config.resume_with)
    return config, values, resumption


def built(config: TrainConfig, launch: Launch, values: dict[str, Any]) -> tuple[Training, dict[str, Any]]:
    """Builds the components of a run and checks what they need of the machine.

    Returns:
        The components, and the configuration as plain Python with the number that max_device_batch=auto has found.
    """
    with explained_failures():
        training = build_training(config, launch, values)
        check_needs(needs_of(training))
    if config.max_device_batch == AUTO:  # Further processes, and a run that resumes this one, use the same number.
        values = values | {"max_device_batch": training.batching.device_batch}
    return training, values


def train(session: Session, training: Training, resumption: Resumption | None) -> EvaluationResult:
    """Trains to the end, from the beginning or from a checkpoint; returns the result of the last evaluation."""
    file = None
    if resumption is not None:
        position = resumption.position
        training.data_module.start = Start(position.epoch, position.updates_of_epoch)
        log.info("%-10s after %s updates (epoch %d)", "resume", f"{position.updates:,}", position.epoch + 1)
        file = resumption.file
    session.trainer.fit(training.engine, training.data_module, ckpt_path=file, weights_only=True)
    return training.engine.result


def evaluate_best(session: Session, training: Training) -> None:
    """Evaluates the best checkpoint with the code of eval.py. If no epoch was evaluated, evaluates the last weights."""
    best = session.best.best_model_path or None
    if best is not None and not Path(best).is_file():
        log.warning("%s is gone: these are the metrics of the last weights", shorter(Path(best)))
        best = None
    elif best is None:
        log.warning("training ended before its first evaluation: these are the metrics of the last weights")
    session.trainer.validate(training.engine, training.data_module, ckpt_path=best, verbose=False, weights_only=True)


def record(session: Session, training: Training, last: EvaluationResult) -> dict[str, Any]:
    """Returns the contents of results.json except the metrics.

    Args:
        session: the finished run.
        training: its components.
        last: the result of the last evaluation during the training.
    """
    return {
        "name": training.config.name,
        "run_dir": str(session.run_dir),
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
        "skipped_updates": training.engine.guard.skipped,
        "images_per_second": session.epoch_summary.images_per_second,
        "data_time": session.data_time.share,
        "parameters": sum(parameter.numel() for parameter in training.model.network.parameters()),
        "precision": training.launch.precision,
        "compile": training.config.compile,
        "batching": str(training.batching),
        "data": describe_data(training.data.source),
    }
