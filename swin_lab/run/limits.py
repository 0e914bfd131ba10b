"""Limits of other libraries' classes: values that annotations admit and that make no sense, and classes that no run can use.

Only what a library checks late, or not at all, is listed.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le, Predicate
from torch.nn.parallel import DistributedDataParallel

from swin_lab.validation import (
    Expected,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Text,
)

NoLimit = Annotated[PositiveInt | Literal[-1], Expected("a positive integer, or -1 for no limit")]
Share = Annotated[Annotated[float, Gt(0), Le(1)] | PositiveInt, Expected("a positive integer, or a fraction such as 0.5")]
Unit = Literal["weeks", "days", "hours", "minutes", "seconds"]
Duration = Annotated[
    Annotated[str, Predicate(lambda text: re.fullmatch(r"(?=.*[1-9])\d+:\d\d:\d\d:\d\d", text) is not None)]
    | Annotated[dict[Unit, NonNegativeInt], Predicate(lambda units: any(units.values()))]
    | None,
    Expected("a positive duration, such as 00:12:00:00 (days, hours, minutes, seconds) or {hours: 12}, or null"),
]

TRAINER: Mapping[str, Any] = {
    "accelerator": Text,
    "devices": Annotated[
        PositiveInt | Literal[-1] | Text | tuple[NonNegativeInt, ...],
        Expected("a positive integer, -1 or auto for all devices, or a list of device indices"),
    ],
    "num_nodes": PositiveInt,
    "limit_train_batches": Share,
    "limit_val_batches": Share,
    "gradient_clip_val": NonNegativeFloat | None,
    "check_val_every_n_epoch": PositiveInt,
    "val_check_interval": Share | None,
    "log_every_n_steps": PositiveInt,
    "max_epochs": NoLimit,
    "max_steps": NoLimit,
    "max_time": Duration,
    "min_epochs": PositiveInt | None,
    "min_steps": PositiveInt | None,
}
OPTIMIZER: Mapping[str, Any] = {
    "betas": Annotated[
        tuple[Fraction, Fraction] | tuple[Fraction, Fraction, Fraction],
        Expected("a list of 2 numbers, each at least 0 and below 1 (of 3 for some optimizers)"),
    ],
    "eps": Annotated[
        Annotated[float, Gt(0), Le(10)] | tuple[Annotated[float, Gt(0), Le(10)] | None, ...] | None,
        Expected("a number above 0 and at most 10 (or a list of such numbers or null for some optimizers)"),
    ],
    "maximize": Annotated[Literal[False], Expected("false; a run minimises the loss")],
    "momentum": Fraction,
    "dampening": Probability,
    "alpha": Fraction,
}
DDP_STRATEGY: Mapping[str, Any] = {
    "process_group_backend": Literal["gloo", "nccl", "mpi", "ucc", "xccl"] | None,
    "model_averaging_period": PositiveInt | None,
}
DDP_KEYWORDS: Mapping[str, Any] = {
    **{name: bool for name, p in inspect.signature(DistributedDataParallel).parameters.items() if isinstance(p.default, bool)},
    "broadcast_buffers": bool | None,
    "bucket_cap_mb": PositiveFloat | None,
}
CHECKPOINT: Mapping[str, Any] = {
    "filename": Annotated[
        Annotated[str, Predicate(lambda name: name not in ("best", "last"))] | None,
        Expected("another name than best and last, the checkpoints of every run"),
    ],
    "save_last": Annotated[Literal[False] | None, Expected("false; every run saves its last checkpoint")],
    "mode": Literal["min", "max"],
}
EARLY_STOPPING: Mapping[str, Any] = {
    "monitor": Text,
    "patience": PositiveInt,
    "min_delta": NonNegativeFloat,
    "mode": Literal["min", "max"],
    "stopping_threshold": float | None,
    "divergence_threshold": float | None,
}

LIMITS: Mapping[str, Mapping[str, Any]] = {
    "lightning.pytorch.trainer.trainer.Trainer": TRAINER,
    "lightning.pytorch.callbacks.early_stopping.EarlyStopping": EARLY_STOPPING,
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint": CHECKPOINT,
    "lightning.pytorch.callbacks.timer.Timer": {"duration": Duration},
    "lightning.pytorch.loggers.csv_logs.CSVLogger": {"flush_logs_every_n_steps": PositiveInt},
    "lightning.pytorch.strategies.ddp.DDPStrategy": DDP_STRATEGY,
    "torch.optim.optimizer.Optimizer": OPTIMIZER,
    "torchvision.transforms.v2._transform.Transform": {"p": Probability},
}
"""Full name of a class -> argument -> annotation. Subclasses have the same limits."""

KEYWORDS: Mapping[str, Mapping[str, Any]] = {"lightning.pytorch.strategies.ddp.DDPStrategy": DDP_KEYWORDS}
"""Full name of a class that passes **kwargs on -> their annotations; it takes no others."""

WRITTEN_FOLDERS = frozenset({"dirpath", "save_dir"})
"""Arguments of callbacks and loggers that name a folder, which they create too late."""

NEEDS: Mapping[str, tuple[str, str]] = {
    "swin_lab.run.loggers.wandb_logger": ("wandb", "wandb"),
    "lightning.pytorch.loggers.wandb.WandbLogger": ("wandb", "wandb"),
    "lightning.pytorch.loggers.mlflow.MLFlowLogger": ("mlflow", "mlflow"),
    "lightning.pytorch.loggers.comet.CometLogger": ("comet_ml", "comet-ml"),
    "lightning.pytorch.callbacks.device_stats_monitor.DeviceStatsMonitor": ("psutil", "psutil"),
}
"""Full name of a class or function -> module that it imports late, and the package that contains it."""

CONTRADICTS: Mapping[str, str] = {
    "lightning.pytorch.callbacks.lr_finder.LearningRateFinder": "sets the learning rate of the run; set optimizer.lr",
    "lightning.pytorch.callbacks.batch_size_finder.BatchSizeFinder": "sets the batch size of the run; set max_device_batch",
    "lightning.pytorch.callbacks.gradient_accumulation_scheduler.GradientAccumulationScheduler": (
        "sets the accumulation of the run; set global_batch and max_device_batch"
    ),
    "lightning.pytorch.callbacks.stochastic_weight_avg.StochasticWeightAveraging": (
        "replaces the schedule of the run; choose a moving average with ema=warm"
    ),
    "lightning.pytorch.callbacks.weight_averaging.WeightAveraging": (
        "replaces the weights of the run; choose a moving average with ema=warm"
    ),
    "lightning.pytorch.callbacks.finetuning.BackboneFinetuning": (
        "trains a module `backbone`, which no run has; choose callbacks=unfreeze"
    ),
    "lightning.pytorch.callbacks.spike.SpikeDetection": "cannot be saved in a checkpoint; remove it",
    "lightning.pytorch.callbacks.progress.progress_bar.ProgressBar": "is a second progress display; a run has one already",
}
"""Full name of a class -> why it cannot be used in a run, and what to do instead. The same is true of its subclasses."""


def limits_of(target: Any) -> Mapping[str, Any]:
    """Returns the annotations that replace those of a class, by argument; none for a function."""
    return {key: annotation for name in _names(target) for key, annotation in LIMITS.get(name, {}).items()}


def keywords_of(target: Any) -> Mapping[str, Any]:
    """Returns the annotations of what a class passes on by **kwargs; empty if they are unknown."""
    return {key: annotation for name in _names(target) for key, annotation in KEYWORDS.get(name, {}).items()}


def why_not(target: Any) -> str | None:
    """Returns why a class or function cannot be used in a run; None if it can."""
    for name in _names(target):
        if name in CONTRADICTS:
            return CONTRADICTS[name]
        module, package = NEEDS.get(name, (None, None))
        if module is not None and find_spec(module) is None:
            return f"needs the package {package}: pip install {package}"
    return None


def _names(target: Any) -> Iterator[str]:
    """Yields the full names of a class and its bases, from the last to the class itself, or that of a function."""
    for base in reversed(getattr(target, "__mro__", (target,))):
        yield f"{base.__module__}.{base.__qualname__}"
