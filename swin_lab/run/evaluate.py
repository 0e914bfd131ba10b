"""Evaluation of weights of any origin; the checkpoint of a run also names its data and its task."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from swin_lab.record import RESULTS, Predictions, flat
from swin_lab.report import print_command, print_evaluation
from swin_lab.report.html import check_plotly
from swin_lab.run.arguments import Invocation
from swin_lab.run.calibrated import calibration_target, last_layer, write_calibrated
from swin_lab.run.compilation import compiler
from swin_lab.run.components import Data, check_validation_images
from swin_lab.run.directory import is_other_process, run_directory, start_console, timestamped, write_whole
from swin_lab.run.evaluation_figures import Findings, find
from swin_lab.run.evaluator import (
    build_compiler,
    build_data_module,
    build_engine,
    build_evaluator,
    choose_preprocessing,
    compose_evaluation,
)
from swin_lab.run.guard import guarded
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.predictions import write_predictions
from swin_lab.run.restore import restore
from swin_lab.run.results import evaluation_record
from swin_lab.run.settings import EvalConfig, RestoreConfig
from swin_lab.run.stored import images_at_once
from swin_lab.run.temperature import judged, stored_temperature
from swin_lab.run.watch import Watch
from swin_lab.training import PredictionCollector
from swin_lab.weights import read_source

log = logging.getLogger("swin_lab")

PAGE = "page.html"
"""File of the results with `page=true`."""


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
    check_page(config.page)
    contents = read_source(config.checkpoint)
    collector = PredictionCollector(keep_outputs=config.calibrate is not None or stored_temperature(contents) is not None)
    trainer, precision = build_evaluator(config, contents, collector)
    compile_network = build_compiler(config, trainer)
    data, task = compose_evaluation(config, contents)
    target = calibration_target(config.calibrate, task, trainer)  # before anything is computed
    check_validation_images(data.source, trainer.world_size)
    restored = restore(contents, task, data.source.class_names, settings, trust=config.trust)
    preprocessing = choose_preprocessing(restored, config.preset)
    layer = last_layer(restored.network, preprocessing) if target is not None else ""
    device_batch = images_at_once(config.batch, contents, preprocessing, trust=config.trust)
    data_module = build_data_module(data, task, preprocessing, device_batch)
    engine = build_engine(config, trainer, restored.network, task, compile_network)
    with (
        Watch(trainer, config.rank_timeout) as watch,
        run_directory(watch, _results_folder(config.out, contents.file), values, invocation.overrides) as folder,
        guarded(folder, watch),
    ):
        for label, text in [*restored.report, ("preset", str(preprocessing))]:
            log.info("%-10s %s", label, text)
        watch.start(trainer)
        trainer.validate(engine, data_module, verbose=False)
        data_module.skipped |= data_module.skipped_everywhere()
        if not trainer.is_global_zero:
            return {}
        record = evaluation_record(contents.file, folder, engine, data_module, preprocessing, precision)
        record |= {"overrides": list(invocation.overrides), "config": values}
        fingerprint = record["data"]["val_fingerprint"]
        record["predictions"] = asdict(save_predictions(config, collector, data, fingerprint, folder))
        calibration = judged(collector, contents, fingerprint, fit=target is not None)
        if target is not None and calibration is not None:
            write_calibrated(target, contents, restored, layer, preprocessing, calibration, fingerprint)
        return conclude(find(engine, collector, data_module, preprocessing, calibration), record, folder, config)


def check_page(wanted: bool) -> None:
    """Raises UserError if a page is wanted that cannot be written."""
    if wanted:
        check_plotly()


def conclude(findings: Findings, record: dict[str, Any], folder: Path, config: EvalConfig) -> dict[str, Any]:
    """Draws, writes and prints what an evaluation has found, and returns the contents of results.json."""
    written = flat(record | findings.record())
    findings.draw(folder)
    if config.page:
        findings.write_page(written, folder / PAGE)
    write_whole(folder / RESULTS, json.dumps(written, indent=2, allow_nan=False) + "\n")
    findings.print_tables()
    print_evaluation(written)
    if config.calibrate is not None:
        print_command("calibrated", config.calibrate)
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


def _results_folder(out: str | None, file: Path) -> Path:
    if out is not None:
        return Path(out).expanduser().absolute()
    run_dir = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    return timestamped(run_dir, "eval_")
