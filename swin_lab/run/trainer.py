"""Lightning's Trainer; devices, processes and precision of a run before its components are built."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from swin_lab import metadata
from swin_lab.data import cores
from swin_lab.data.datamodule import PROCESSES_PER_CORE
from swin_lab.errors import UserError, did_you_mean
from swin_lab.run.instantiate import check_keys, check_node, instantiate
from swin_lab.run.roll_call import check_port

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

SHORT_PRECISIONS = {"32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}
PRECISIONS = {name: SHORT_PRECISIONS.get(name, name) for name in metadata.PRECISIONS}
"""Choices of `precision` besides auto, with Lightning's short names -> the name that is used and printed."""


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
    if node["max_epochs"] == -1 and node.get("max_steps", -1) == -1:  # A schedule needs an end, and max_time is none.
        raise UserError("trainer.max_epochs=-1: the run has no end; set trainer.max_steps, or a positive trainer.max_epochs")
    chosen = choose_precision(str(precision), str(node.get("accelerator", "auto")))
    trainer = build_trainer(node, chosen)
    for unit in ("epochs", "steps"):
        least, most = node.get(f"min_{unit}"), node.get(f"max_{unit}", -1)
        if least is not None and -1 < most < least:
            raise UserError(f"trainer.min_{unit}={least} is more than trainer.max_{unit}={most}")
    check_launch(node, trainer)
    return Launch(trainer, chosen)


def check_launch(node: Mapping[str, Any], trainer: Trainer) -> None:
    """Checks that the processes of a run can be started from here.

    Raises:
        UserError: they are forked or spawned, wait for other machines in vain, or are far more than the CPU has cores.
    """
    launcher, environment = trainer.strategy.launcher, getattr(trainer.strategy, "cluster_environment", None)
    if isinstance(launcher, _MultiProcessingLauncher):
        raise UserError(f"trainer.strategy={node.get('strategy')} forks or spawns processes; set trainer.strategy=ddp instead")
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: this process does not know the other machines; start it with torchrun or "
            "SLURM, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each machine"
        )
    if trainer.world_size > 1 and isinstance(environment, LightningEnvironment) and "LOCAL_RANK" not in os.environ:
        check_port()
    on_cpu = isinstance(trainer.accelerator, CPUAccelerator)
    if on_cpu and trainer.num_devices > (limit := PROCESSES_PER_CORE * cores()):
        raise UserError(f"trainer.devices={trainer.num_devices}: the CPU has {cores()} cores; use at most {limit} processes")
    backend = getattr(trainer.strategy, "process_group_backend", None)
    if backend is not None and (not torch.distributed.is_backend_available(backend) or (on_cpu and backend == "nccl")):
        raise UserError(f"trainer.strategy.process_group_backend={backend} is not available on this machine's devices")


def check_batches(node: Mapping[str, Any], train: int, val: int) -> None:
    """Checks the limits of batches, once their numbers are known.

    Args:
        node: the `trainer` node.
        train: training batches of an epoch on one device.
        val: batches of an evaluation on one device.

    Raises:
        UserError: a fraction leaves no batch, or there are too few batches for the interval of evaluations.
    """
    for key, batches in (("limit_train_batches", train), ("limit_val_batches", val)):
        limit = node.get(key)
        if isinstance(limit, float) and int(batches * limit) == 0:
            raise UserError(f"trainer.{key}={limit} leaves none of {batches} batches; raise it, or give a number such as 1")
    limit, interval = node.get("limit_train_batches"), node.get("val_check_interval")
    used = int(train * limit) if isinstance(limit, float) else min(train, limit or train)
    if type(interval) is int and interval > used and node.get("check_val_every_n_epoch", 1) is not None:
        raise UserError(f"trainer.val_check_interval={interval} is more than the {used} training batches of an epoch")


def check_trainer(node: Mapping[str, Any]) -> None:
    """Checks the keys of the `trainer` node, and the values that Lightning does not check.

    Raises:
        UserError: a key is unknown or belongs to the run, or a value is invalid.
    """
    check_keys("trainer", node)
    for key, instead in SET_BY_THE_RUN.items():
        if key in node:
            raise UserError(f"trainer.{key} is set by the run; {instead}")
    strategy = str(node.get("strategy"))
    if strategy.startswith("fsdp") or "FSDPStrategy" in strategy:  # The norms of its flat shards are not that of the gradient.
        raise UserError(f"trainer.strategy={strategy} is not supported; choose trainer=fsdp, which shards by PyTorch's FSDP2")
    check_node("trainer", node)


def build_trainer(
    node: dict[str, Any],
    precision: str,
    *,
    callbacks: list[Callback] | None = None,
    loggers: list[Logger] | None = None,
    accumulate: int = 1,
    evaluate_first: bool = False,
    plugins: list[CheckpointIO] | None = None,
) -> Trainer:
    """Builds Lightning's Trainer.

    Args:
        node: the `trainer` node.
        precision: as Lightning names it, such as bf16-mixed.
        callbacks: all callbacks of the run.
        loggers: all loggers of the run.
        accumulate: batches whose gradients are accumulated before an update.
        evaluate_first: whether the whole validation set is evaluated before the first update.
        plugins: what writes checkpoints.

    Raises:
        UserError: a key belongs to the run, an environment variable changes it, or Lightning refuses a value.
    """
    check_trainer(node)
    for name, value in os.environ.items():  # Lightning takes arguments that are not given from them.
        if name.startswith("PL_TRAINER_") and value:
            raise UserError(f"the environment variable {name}={value} changes the run; unset it, and set trainer.KEY=VALUE")
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
    } | ({"plugins": plugins} if plugins else {})
    trainer: Trainer = instantiate("trainer", node, extra, Trainer)
    return trainer


def choose_precision(precision: str, accelerator: str) -> str:
    """Returns the full name of a precision; `auto` is bf16-mixed on a GPU with bfloat16, and 32-true elsewhere.

    Raises:
        UserError: the precision is unknown, or there is no device that computes in it.
    """
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if precision == "auto":
        return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision} is unknown{did_you_mean(precision, {'auto', *PRECISIONS.values()})}")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not on_gpu and not torch.backends.mps.is_available())
    if PRECISIONS[precision] == "16-mixed" and on_cpu:  # Lightning would compute in bf16-mixed.
        raise UserError(f"precision={precision} needs a GPU; on a CPU, choose precision=32-true or bf16-mixed")
    return PRECISIONS[precision]
