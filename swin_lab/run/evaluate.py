"""Evaluation of weights of any origin; the checkpoint of a run says by itself on which data."""

import json
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import rich
from lightning.pytorch.callbacks import RichProgressBar
from torch import nn

from swin_lab.data import ImageData, ImageSource, Preprocessing
from swin_lab.data.real import real_labels
from swin_lab.errors import UserError, is_whole
from swin_lab.models import SwinTransformer
from swin_lab.report import ClassResults, print_evaluation
from swin_lab.run import build
from swin_lab.run.checkpoint import card_of_run, refuse_foreign_classes, tensors_of_run
from swin_lab.run.directory import run_directory, start_console, timed
from swin_lab.run.guard import guarded
from swin_lab.run.identity import describe_data, identity
from swin_lab.training import Classifier
from swin_lab.weights import load
from swin_lab.weights.checkpoint import NETWORK_CLASS, locate
from swin_lab.weights.files import Contents, read
from swin_lab.weights.preprocessing import preset

log = logging.getLogger("swin_lab")

FOREIGN: dict[str, Any] = {"device_batch": 64, "precision": "auto"}
"""For weights that come from no run."""


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
    build.check_transfer(config["transfer"])
    contents = read(locate(str(config["checkpoint"])))
    card: dict[str, Any] = card_of_run(contents) or FOREIGN | (contents.card or {})
    data_node = _data_node(config, card, contents.file)
    if not config["trust"]:
        named = {"model": card["model"]} if "model" in card else {}
        refuse_foreign_classes(contents.file, named | ({} if "_target_" in (config.get("data") or {}) else {"data": data_node}))

    source, loading = build.make_source(data_node)
    network, prepared, report = _network(config, card, contents, source)
    preprocessing = _preprocessing(network, prepared, config["preset"])
    classes = len(source.class_names)
    answers = real_labels(source.val, classes) if config["real"] else None
    classifier = Classifier(network, classes, card, flip=config["flip"], real_labels=answers)
    data = ImageData(
        source,
        None,
        preprocessing.for_evaluation(),
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
        run_directory(trainer, wanted_dir or _results_folder(config["out"], contents.file), config, overrides) as folder,
        guarded(folder, trainer.world_size),
    ):
        for label, text in [*report, ("preset", str(preprocessing) + ", with mirror images" * bool(config["flip"]))]:
            log.info("%-10s %s", label, text)
        trainer.validate(classifier, data, verbose=False)
        result: dict[str, Any] = {"metrics": classifier.metrics, "skipped": len(data.skipped_everywhere())}
        if trainer.is_global_zero:
            result |= {
                "checkpoint": str(contents.file),
                "run_dir": str(folder),
                "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
                "images": classifier.images_evaluated,
                "preprocessing": preprocessing.as_dict() | {"in_words": str(preprocessing), "flip": config["flip"]},
                "data": describe_data(source),
                "precision": precision,
                "overrides": overrides,
            }
            _write(result, classifier, source, folder)
            print_evaluation(result)
    return result


def _data_node(config: dict[str, Any], card: dict[str, Any], file: Path) -> dict[str, Any]:
    """What is given, or what the checkpoint's run was trained with, or this with a few keys changed."""
    given: dict[str, Any] = config.get("data") or {}
    if "_target_" in given:
        return given
    if "config" not in card:
        raise UserError(f"{file.name} does not say on which data; give data=folder data.root=... or another choice of data")
    return {**card["config"]["data"], **given}


def _network(
    config: dict[str, Any], card: dict[str, Any], contents: Contents, source: ImageSource
) -> tuple[nn.Module, dict[str, Any], list[tuple[str, str]]]:
    """The network, its preprocessing as plain Python, and what there is to say of its weights."""
    if "model" in card and card["model"].get("_target_") != NETWORK_CLASS:  # a class of the user's own
        _check_classes(source, card["class_names"])
        network: nn.Module = build.make("model", card["model"])
        network.load_state_dict(tensors_of_run(contents))
        return network, card["preprocessing"], []
    trained = card.get("class_names") or source.class_names
    if "model" in card and config["transfer"]["head"] == "auto" and not set(source.class_names) < set(trained):
        _check_classes(source, trained)  # a part of the classes is found by name
    swin, report = load(
        contents.file,
        class_names=list(source.class_names),
        **build.transfer_arguments(config["transfer"]),
    )
    if report.rows is None or None in report.rows:
        raise UserError(
            f"{contents.file.name} cannot be evaluated on these {len(source.class_names)} classes; its head would be "
            f"{report.head}.\nGive data of the checkpoint's classes, or transfer.head=keep if they are the same in this order"
        )
    return swin, swin.card["preprocessing"], report.lines()


def _preprocessing(network: nn.Module, prepared: dict[str, Any], chosen: str | None) -> Preprocessing:
    """The checkpoint's own, or this as a preset fits images."""
    if chosen is None:
        return Preprocessing.from_dict(prepared)
    if not isinstance(network, SwinTransformer):
        raise UserError(f"preset={chosen} is for a SwinTransformer; the checkpoint is a {type(network).__name__}")
    return Preprocessing.from_dict(prepared | preset(chosen, network.config))


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
