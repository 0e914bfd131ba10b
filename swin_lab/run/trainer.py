"""Lightning's Trainer; devices, processes and precision of a run before its components are built."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger

from swin_lab.errors import UserError
from swin_lab.run.instantiate import check_keys, instantiate
from swin_lab.validation import Expected, NonNegativeFloat, PositiveFloat, PositiveInt, check_value

SET_BY_THE_RUN = {
    "precision": "set precision=...",
    "accumulate_grad_batches": "set global_batch and max_device_batch",
    "fast_dev_run": "choose debug=limit",
    "callbacks": "add to the callbacks group",
    "logger": "choose with logger=...",
    "enable_progress_bar": "it is shown on a terminal",
    "enable_model_summary": "the size of the model is printed",
    "num_sanity_val_steps": "set transfer.evaluate_first",
    "overfit_batches": "set trainer.limit_train_batches",
    "use_distributed_sampler": "every image of an evaluation is counted once",
}
"""Arguments of Lightning's Trainer that the run sets -> what a user sets instead."""

LIMITS: dict[str, Any] = {
    "limit_train_batches": PositiveFloat,
    "limit_val_batches": PositiveFloat,
    "gradient_clip_val": NonNegativeFloat | None,
    "check_val_every_n_epoch": PositiveInt,
    "val_check_interval": PositiveFloat | None,
    "log_every_n_steps": PositiveInt,
    "max_epochs": Annotated[PositiveInt | Literal[-1], Expected("a positive integer, or -1 for no limit")],
    "max_steps": Annotated[PositiveInt | Literal[-1], Expected("a positive integer, or -1 for no limit")],
    "min_epochs": PositiveInt | None,
    "min_steps": PositiveInt | None,
}
"""Values that Lightning does not check, or checks only after the first epoch."""


@dataclass(frozen=True)
class Launch:
    """Describes the devices and processes of a run, which Lightning derives from configuration and environment."""

    trainer: Trainer
    """A Trainer that is used only for its processes and devices."""
    precision: str

    @property
    def world_size(self) -> int:
        """Returns the number of processes, one per device, on all nodes."""
        return int(self.trainer.world_size)

    @property
    def devices_per_node(self) -> int:
        """Returns the number of devices that this run uses on this machine."""
        return int(self.trainer.num_devices)


def find_launch(node: dict[str, Any], precision: str | int) -> Launch:
    """Determines the devices and processes of a run before any data is loaded.

    Raises:
        UserError: Lightning refuses a value, or the devices do not exist.
    """
    if "max_epochs" not in node:  # Lightning would train for 1000 epochs.
        raise UserError("trainer.max_epochs is missing; -1 means no limit")
    chosen = choose_precision(str(precision), str(node.get("accelerator", "auto")))
    return Launch(build_trainer(node, chosen), chosen)


def check_trainer(node: Mapping[str, Any]) -> None:
    """Checks the keys of the `trainer` node, and the values that Lightning does not check.

    Raises:
        UserError: a key is unknown or belongs to the run, or a value is invalid.
    """
    check_keys("trainer", node)
    for key, instead in SET_BY_THE_RUN.items():
        if key in node:
            raise UserError(f"trainer.{key} is set by the run; {instead}")
    for key, annotation in LIMITS.items():
        if key in node:
            check_value(f"trainer.{key}", node[key], annotation)


def build_trainer(
    node: dict[str, Any],
    precision: str,
    *,
    callbacks: list[Callback] | None = None,
    loggers: list[Logger] | None = None,
    accumulate: int = 1,
    evaluate_first: bool = False,
) -> Trainer:
    """Builds Lightning's Trainer.

    Args:
        node: the `trainer` node.
        precision: as Lightning names it, such as bf16-mixed.
        callbacks: all callbacks of the run.
        loggers: all loggers of the run.
        accumulate: batches whose gradients are accumulated before an update.
        evaluate_first: whether the whole validation set is evaluated before the first update.

    Raises:
        UserError: a key belongs to the run, or Lightning refuses a value.
    """
    check_trainer(node)
    extra = {
        "precision": precision,
        "callbacks": callbacks or [],
        "logger": loggers or False,
        "accumulate_grad_batches": accumulate,
        "enable_progress_bar": any("ProgressBar" in type(callback).__name__ for callback in callbacks or ()),
        "enable_model_summary": False,
        "num_sanity_val_steps": -1 if evaluate_first else 0,
        # swin_lab's own samplers neither repeat nor drop an image of an evaluation.
        "use_distributed_sampler": False,
    }
    try:
        trainer: Trainer = instantiate("trainer", node, extra)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from error
    return trainer


def choose_precision(precision: str, accelerator: str) -> str:
    """Resolves `auto` to bf16-mixed on a GPU with bfloat16 and to 32-true elsewhere; returns any other value unchanged."""
    if precision != "auto":
        return precision
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
