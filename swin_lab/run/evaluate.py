"""Evaluation of a checkpoint that describes itself: model, preprocessing and, if nothing else is given, data."""

import json
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import rich
from lightning.pytorch.callbacks import RichProgressBar

from swin_lab.data import ImageData, ImageSource, Preprocessing
from swin_lab.errors import UserError, is_whole
from swin_lab.report import ClassResults, print_evaluation
from swin_lab.run import build
from swin_lab.run.checkpoint import find_checkpoint, read_checkpoint, refuse_foreign_classes
from swin_lab.run.directory import run_directory, start_console, timed
from swin_lab.run.guard import guarded
from swin_lab.run.identity import describe_data, identity
from swin_lab.training import Classifier

log = logging.getLogger("swin_lab")


def run(config: dict[str, Any], wanted_dir: Path | None) -> dict[str, Any]:
    """Evaluates as a resolved configuration says.

    Args:
        config: conf/eval.yaml, composed; `overrides` is what was typed.
        wanted_dir: folder of the results; None for a new one beside the checkpoint's run.

    Returns:
        What results.json holds.

    Raises:
        UserError: the checkpoint or the data cannot be used.
    """
    start_console(quiet=int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0"))) > 0)
    overrides = config.pop("overrides", [])
    build.check_top_keys(config, "eval")
    file = find_checkpoint(str(config["checkpoint"]))
    card, tensors = read_checkpoint(file)
    given = config.get("data") or {}
    data_node = given if "_target_" in given else {**card["config"]["data"], **given}
    if not config["trust"]:
        refuse_foreign_classes(file, {"model": card["model"]} | ({} if "_target_" in given else {"data": data_node}))

    source, loading = build.make_source(data_node)
    _check_classes(source, card["class_names"])
    network = build.make("model", card["model"])
    network.load_state_dict(tensors)
    classifier = Classifier(network, len(source.class_names), card)
    data = ImageData(
        source,
        None,
        Preprocessing.from_dict(card["preprocessing"]).for_evaluation(),
        global_batch=1,
        device_batch=_batch(card["device_batch"] if config["batch"] is None else config["batch"]),
        seed=0,
        loading=loading,
    )
    precision = config["precision"] or card["precision"]
    bar = [RichProgressBar()] if rich.get_console().is_terminal else []
    trainer = build.make_trainer(
        config["trainer"], build.choose_precision(precision, config["trainer"].get("accelerator", "auto")), bar
    )

    with (
        run_directory(trainer, wanted_dir or _results_folder(config["out"], file), config, overrides) as folder,
        guarded(folder, trainer.world_size),
    ):
        trainer.validate(classifier, data, verbose=False)
        result: dict[str, Any] = {"metrics": classifier.metrics, "skipped": len(data.skipped_everywhere())}
        if trainer.is_global_zero:
            result |= {
                "checkpoint": str(file),
                "run_dir": str(folder),
                "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
                "images": classifier.images_evaluated,
                "data": describe_data(source),
                "precision": precision,
                "overrides": overrides,
            }
            _write(result, classifier, source, folder)
            print_evaluation(result)
    return result


def _write(result: dict[str, Any], classifier: Classifier, source: ImageSource, folder: Path) -> None:
    if classifier.confusion_counts is not None:
        classes = ClassResults(source.class_names, classifier.confusion_counts)
        classes.print(rich.get_console())
        classes.draw(folder / "confusion.png")
        result |= {"per_class": classes.per_class(), "worst_confusions": classes.worst_confusions()}
    (folder / "results.json").write_text(json.dumps(result | identity(), indent=2) + "\n")


def _results_folder(out: str | None, file: Path) -> Path:
    if out is not None:
        return Path(out).expanduser().absolute()
    run_dir = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    return timed(run_dir, "eval_")


def _check_classes(source: ImageSource, trained: list[str]) -> None:
    given = list(source.class_names)
    if given == trained:
        return
    if len(given) != len(trained):
        raise UserError(
            f"the data has {len(given)} classes and the checkpoint was trained on {len(trained)}; give data of the same classes"
        )
    first = next(i for i in range(len(given)) if given[i] != trained[i])
    raise UserError(
        f"the data's classes are not the checkpoint's: class {first} is {given[first]!r} in the data "
        f"and {trained[first]!r} in the checkpoint; name the class folders as in training"
    )


def _batch(batch: int) -> int:
    if not is_whole(batch) or batch < 1:
        raise UserError(f"batch={batch} is no whole number above zero")
    return batch
