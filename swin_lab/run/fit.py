"""Training: compose, check, create the run directory, fit, evaluate the best checkpoint, record."""

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning import seed_everything

from swin_lab.data.decoders import build_decoder
from swin_lab.data.sampling import Start
from swin_lab.interruption import Interruption
from swin_lab.report import print_training, shorter
from swin_lab.run.arguments import Invocation
from swin_lab.run.batching import AUTO
from swin_lab.run.dashboards import show
from swin_lab.run.directory import (
    is_other_process,
    restore_settings,
    run_directory,
    run_folder,
    start_console,
    timestamped,
)
from swin_lab.run.early_end import continuation, explained, stop_early
from swin_lab.run.failures import explained_failures
from swin_lab.run.gallery import final_figures
from swin_lab.run.guard import guarded
from swin_lab.run.identity import identify
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.predictions import write_predictions
from swin_lab.run.preflight import check_needs, needs_of
from swin_lab.run.recording import Recorder
from swin_lab.run.resume import Resumption, check_changes, find_resumption
from swin_lab.run.resumed import beginning, check_agreed, resumed_position, with_found_batch
from swin_lab.run.session import Session, announce, start_session
from swin_lab.run.settings import TrainConfig
from swin_lab.run.trainer import Launch, find_launch
from swin_lab.run.training import Training, build_training
from swin_lab.run.watch import Watch

log = logging.getLogger("swin_lab")


def run(values: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    """Trains a model with a resolved configuration.

    Args:
        values: conf/train.yaml, composed.
        invocation: the command that started the run.

    Returns:
        The contents of results.json; nothing in the further processes of a run.

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
        recorder = Recorder(training, identify(run_dir, config.name), values, invocation, started_at)
        stack.enter_context(recorder.recording())
        stack.enter_context(guarded(run_dir, watch, invocation.train_command))
        recorder.write()
        watch.advice = lambda: continuation(run_dir, invocation)
        write_again = partial(restore_settings, run_dir, values, invocation.overrides)
        resumed = resumed_position(resumption, first=watch.rank == 0)
        session = start_session(training, recorder, interruption, resumed, write_again)
        announce(training)
        watch.start(session.trainer)
        check_agreed(resumed, watch.shared("beginning", lambda: beginning(resumed)))
        with explained(session, invocation):
            complete(session, training, recorder, resumption)
    return recorder.record.flat() if watch.rank == 0 else {}


def complete(session: Session, training: Training, recorder: Recorder, resumption: Resumption | None) -> None:
    """Trains to the end, evaluates the best checkpoint, and records and prints the results."""
    train(session, training, resumption)
    evaluate_best(session, training)
    training.data_module.skipped |= training.data_module.skipped_everywhere()
    if session.trainer.is_global_zero:
        show_evaluation(session, training, recorder)
    recorder.finish(training.engine.result)
    if session.trainer.is_global_zero:
        print_training(recorder.record.flat())


def show_evaluation(session: Session, training: Training, recorder: Recorder) -> None:
    """Saves the predictions of the final evaluation, if that is wanted, and shows its figures on every dashboard."""
    result, columns, source = training.engine.result, session.predictions.columns, training.data.source
    record = recorder.record
    if training.config.save_predictions:
        fingerprint, weights = record.data.val_fingerprint, record.derived.monitor_weights
        recorder.predictions = write_predictions(columns, source, fingerprint, weights, session.run_dir)
    decode = build_decoder(training.preprocessing, training.data.loader.decoder)
    figures, tables = final_figures(training.task, result, columns, source.val, decode, session.run_dir)
    show(session.trainer.loggers, figures, tables, session.trainer.global_step)


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


def train(session: Session, training: Training, resumption: Resumption | None) -> None:
    """Trains to the end, from the beginning or from a checkpoint."""
    file = None
    if resumption is not None:
        position = resumption.position
        training.data_module.start = Start(position.epoch, position.updates_of_epoch)
        log.info("%-10s after %s updates (epoch %d)", "resume", f"{position.updates:,}", position.epoch + 1)
        file = resumption.file
    session.trainer.fit(training.engine, training.data_module, ckpt_path=file, weights_only=True)


def evaluate_best(session: Session, training: Training) -> None:
    """Evaluates the best checkpoint with the code of eval.py. If no epoch was evaluated, evaluates the last weights."""
    best = session.best.best_model_path or None
    if best is not None and not Path(best).is_file():
        log.warning("%s is gone: these are the metrics of the last weights", shorter(Path(best)))
        best = None
    elif best is None:
        log.warning("training ended before its first evaluation: these are the metrics of the last weights")
    session.trainer.validate(training.engine, training.data_module, ckpt_path=best, verbose=False, weights_only=True)
