"""Training: everything is built and checked, then the run directory is made, then the first image is trained on."""

import json
import logging
import os
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import rich
import torch
from lightning import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar

from swin_lab import __version__
from swin_lab.data import ImageData, ImageSource, Preprocessing, cores
from swin_lab.errors import UserError, is_whole
from swin_lab.models import SwinTransformer
from swin_lab.ops.window_attention import attention_backend
from swin_lab.report import print_training
from swin_lab.run import build
from swin_lab.run.batching import Batching, cut
from swin_lab.run.directory import run_directory, run_folder, start_console, timed
from swin_lab.run.guard import guarded
from swin_lab.run.identity import describe_data, identity
from swin_lab.run.loggers import close, flat, make_loggers
from swin_lab.training import Classifier, DataTimeMonitor, EpochSummary
from swin_lab.weights import Report, transfer

log = logging.getLogger("swin_lab")


def run(config: dict[str, Any], wanted_dir: Path | None) -> dict[str, Any]:
    """Trains as a resolved configuration says.

    Args:
        config: conf/train.yaml, composed; `overrides` is what was typed.
        wanted_dir: the run directory; None for a new one under out/name.

    Returns:
        What results.json holds; in the further processes of a run, only the metrics.

    Raises:
        UserError: the configuration is wrong, or the run cannot go on for a reason its user can mend.
        KeyboardInterrupt: after Ctrl-C.
    """
    started_at = perf_counter()
    start_console(quiet=int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0"))) > 0)
    overrides = config.pop("overrides", [])
    build.check_top_keys(config, "train")
    folder = run_folder(config["out"], config["name"])
    seed_everything(_seed(config["seed"]), verbose=False)

    parts = _Parts(config)
    with (
        run_directory(parts.trainer, wanted_dir or timed(folder), config, overrides) as run_dir,
        guarded(run_dir, parts.trainer.world_size),
    ):
        parts.attach(run_dir)
        parts.announce()
        try:
            parts.trainer.fit(parts.classifier, parts.data)
            metrics = parts.evaluate_best()
            result = {"metrics": metrics, "skipped": len(parts.data.skipped_everywhere())}
            if parts.trainer.is_global_zero:
                wall_seconds = perf_counter() - started_at
                result |= parts.record(run_dir) | {"overrides": overrides, "wall_seconds": wall_seconds} | identity()
                (run_dir / "results.json").write_text(json.dumps(result, indent=2) + "\n")
                print_training(result)
        finally:
            close(parts.trainer.loggers)
    return result


class _Parts:
    """What a run is made of; making it is checking it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.optimizer = build.make("optimizer", config["optimizer"])
        self.schedule = build.make("schedule", config["schedule"])
        self.mixing = build.make_optional("mixing", config["mixing"])
        self.ema = build.make_optional("ema", config["ema"])
        self.best = _checkpoint("best", monitor="val_ema/acc1" if self.ema else "val/acc1", mode="max")
        self.last = _checkpoint("last")
        self.lines, self.wait = EpochSummary(), DataTimeMonitor()
        for name, node in (config["logger"] or {}).items():
            build.check_arguments(f"logger.{name}", node or {})
        own = [build.make(f"callbacks.{name}", node) for name, node in (config["callbacks"] or {}).items()]
        bar: list[Callback] = [RichProgressBar()] if rich.get_console().is_terminal else []
        self.precision = build.choose_precision(config["precision"], config["trainer"].get("accelerator", "auto"))
        self.trainer = build.make_trainer(
            config["trainer"], self.precision, [self.best, self.last, self.lines, self.wait, *bar, *own]
        )
        self.batching = cut(config["global_batch"], self.trainer.world_size, config["max_device_batch"])
        self.trainer.accumulate_grad_batches = self.batching.accumulate
        self.lines.images_per_batch = self.batching.device_batch * self.batching.devices

        build.check_model(config["model"])
        build.check_transfer(config["transfer"])
        self.weights, model = build.open_weights(config["weights"], config["transfer"], config["model"])
        self.source, loading = build.make_source(config["data"])
        _check_size(self.source, self.batching)
        torch.manual_seed(config["seed"])  # the same start whatever the data has drawn
        self.network, self.model = build.make_network(model, len(self.source.class_names))
        self.report = self._fill_network()
        if config["transfer"]["check"] and self.report is not None and self.report.rows and None not in self.report.rows:
            self.trainer.num_sanity_val_steps = float("inf")  # all images, before the first update
        self.preprocessing = build.make_preprocessing(self.model, loading, self.source, config["preset"])
        augment = build.make_augment(config["augment"], self.preprocessing.mean)
        self.data = ImageData(
            self.source,
            self.preprocessing.for_training(augment.image, augment.tensor),
            self.preprocessing.for_evaluation(),
            global_batch=self.batching.global_batch,
            device_batch=self.batching.device_batch,
            seed=config["seed"],
            loading=loading,
        )
        self.classifier = Classifier(
            self.network,
            len(self.source.class_names),
            _card(config, self.model, self.source, self.preprocessing, self.precision, self.batching),
            optimizer=self.optimizer,
            schedule=self.schedule,
            mixing=self.mixing,
            ema=self.ema,
            global_batch=self.batching.global_batch,
            label_smoothing=config["label_smoothing"],
            seed=config["seed"],
        )

    def _fill_network(self) -> Report | None:
        """Puts the weights that the run starts from into the network."""
        if self.weights is None:
            return None
        assert isinstance(self.network, SwinTransformer)
        settings = self.config["transfer"]
        return transfer(
            self.weights,
            self.network,
            head=settings["head"],
            class_names=list(self.source.class_names),
            tables=settings["tables"],
            strict=settings["strict"],
        )

    def attach(self, run_dir: Path) -> None:
        """Tells checkpoints and loggers where the run directory is."""
        self.best.dirpath = self.last.dirpath = str(run_dir / "checkpoints")
        self.wait.seconds_waited = lambda: self.data.seconds_waited
        self.wait.readers = f"{self.data.workers_on(self.trainer.num_devices)} workers, {cores()} cores"
        self.trainer.loggers = make_loggers(self.config["logger"], run_dir, self.config["name"])
        for logger in self.trainer.loggers:
            logger.log_hyperparams(flat(self.config))

    def announce(self) -> None:
        """What was derived from what was asked for, once."""
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        train, val = len(self.source.train.labels), len(self.source.val.labels)
        rate = self.optimizer.scaled_lr(self.batching.global_batch)
        log.info("model      %s, %s parameters", type(self.network).__name__, f"{parameters:,}")
        for label, text in self.report.lines() if self.report is not None else ():
            log.info("%-10s %s", label, text)
        log.info(
            "data       %s training and %s validation images, %s classes",
            f"{train:,}",
            f"{val:,}",
            len(self.source.class_names),
        )
        log.info(
            "device     %s x %s, precision %s",
            self.trainer.num_devices,
            self.trainer.accelerator.name(),
            self.precision,
        )
        log.info("batch      %s", self.batching)
        if "attention_backend" in self.model:
            log.info("attention  %s", attention_backend(self.model["attention_backend"]).__name__)
        log.info("optimizer  %s, learning rate %.4g", type(self.optimizer).__name__, rate)
        if self.preprocessing.preset is not None:
            log.info("preset     %s", self.preprocessing)

    def evaluate_best(self) -> dict[str, float]:
        """Metrics of the best checkpoint, by the same code as eval.py; of the last weights if no epoch was evaluated."""
        best = self.best.best_model_path or None
        if best is None:
            log.warning("training ended before its first evaluation: these are the last weights")
            self.trainer.save_checkpoint(f"{self.last.dirpath}/last.ckpt")
        self.trainer.validate(self.classifier, self.data, ckpt_path=best, verbose=False, weights_only=True)
        return self.classifier.metrics

    def record(self, run_dir: Path) -> dict[str, Any]:
        """What results.json says besides the metrics."""
        return {
            "name": self.config["name"],
            "run_dir": str(run_dir),
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "metrics_at_start": self.classifier.metrics_at_start,
            "images": self.classifier.images_evaluated,
            "preprocessing": self.preprocessing.as_dict() | {"in_words": str(self.preprocessing)},
            "best_epoch": self._best_epoch(),
            "epochs": self.trainer.current_epoch,
            "updates": self.trainer.global_step,
            "images_per_second": self.lines.images_per_second,
            "data_wait": self.wait.share,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "precision": self.precision,
            "batching": str(self.batching),
            "data": describe_data(self.source),
        }

    def _best_epoch(self) -> int | None:
        if not self.best.best_model_path:
            return None
        return int(torch.load(self.best.best_model_path, map_location="cpu", weights_only=True, mmap=True)["epoch"]) + 1


def _card(
    config: dict[str, Any],
    model: dict[str, Any],
    source: ImageSource,
    preprocessing: Preprocessing,
    precision: str,
    batching: Batching,
) -> dict[str, Any]:
    return {
        "format": 1,
        "version": __version__,
        "model": model,
        "class_names": list(source.class_names),
        "preprocessing": preprocessing.as_dict(),
        "precision": precision,
        "device_batch": batching.device_batch,
        "config": config,
    }


def _checkpoint(filename: str, monitor: str | None = None, mode: str = "min") -> ModelCheckpoint:
    return ModelCheckpoint(
        filename=filename,
        monitor=monitor,
        mode=mode,
        save_top_k=1,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


def _check_size(source: ImageSource, batching: Batching) -> None:
    train, val = len(source.train.labels), len(source.val.labels)
    if train == 0:
        raise UserError("data.val_only=true leaves nothing to train on; leave it out, or evaluate with eval.py")
    if train < batching.global_batch:
        raise UserError(f"global_batch={batching.global_batch} is more than the {train} training images; lower it")
    if val < batching.devices:
        raise UserError(
            f"{val} validation images are fewer than the {batching.devices} devices; give more, or lower trainer.devices"
        )


def _seed(seed: int) -> int:
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} is no whole number from 0 to {2**32 - 1}")
    return seed
