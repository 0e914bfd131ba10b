"""Checks of a configuration that need neither its data, nor its weights, nor its devices; training checks the same values."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from swin_lab.data import LoaderConfig
from swin_lab.data.datamodule import check_processes
from swin_lab.errors import UserError, did_you_mean
from swin_lab.record import flat
from swin_lab.run.components import loader_config
from swin_lab.run.compose import MISSING, error_of_missing
from swin_lab.run.directory import run_folder
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.model import check_transfer
from swin_lab.run.settings import TrainConfig, TransferConfig
from swin_lab.run.trainer import check_trainer, choose_precision
from swin_lab.run.training import check_nodes
from swin_lab.training import CheckpointConfig


def check_settings(config: Mapping[str, Any]) -> None:
    """Checks conf/train.yaml, composed, for a machine that may have other devices than this one; `name` may be null.

    Raises:
        UserError: a key is unknown or missing, or a value is invalid.
    """
    # Without a name, a run is named after its choices.
    settings = build_dataclass("", TrainConfig, {key: str(value) if key == "name" else value for key, value in config.items()})
    check_given({key: value for key, value in config.items() if key != "data"})
    run_folder(settings.out, settings.name)
    check_trainer(settings.trainer)
    if "max_epochs" not in settings.trainer:  # Lightning would train for 1000 epochs.
        raise UserError("trainer.max_epochs is missing; -1 means no limit")
    check_names(settings.trainer)
    accelerator = str(settings.trainer.get("accelerator", "auto"))
    choose_precision(str(settings.precision), "gpu" if accelerator == "auto" else accelerator)
    check_nodes(settings)
    build_dataclass("checkpoint", CheckpointConfig, settings.checkpoint)
    check_loader(loader_config(settings.data))
    check_transfer(settings.weights, build_dataclass("transfer", TransferConfig, settings.transfer))


def check_names(trainer: Mapping[str, Any]) -> None:
    """Raises UserError if Lightning knows no accelerator or strategy of the name in a `trainer` node."""
    known = {
        "accelerator": {"auto", "gpu", *AcceleratorRegistry.available_accelerators()},
        "strategy": {"auto", *StrategyRegistry.available_strategies()},
    }
    for key, names in known.items():
        value = trainer.get(key, "auto")
        if isinstance(value, str) and value not in names:
            raise UserError(f"trainer.{key}={value} is unknown{did_you_mean(value, names)}")


def check_loader(loader: LoaderConfig) -> LoaderConfig:
    """Returns loader settings; raises UserError if this machine cannot run their worker processes."""
    check_processes("data.num_workers", loader.num_workers)
    return loader


def check_given(config: Mapping[str, Any]) -> None:
    """Raises UserError for required values that were not given."""
    missing = sorted(key for key, value in flat(dict(config)).items() if value == MISSING)
    if missing:
        raise error_of_missing(missing, {})
