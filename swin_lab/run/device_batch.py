"""The largest batch that a device takes (`max_device_batch=auto`), found by trials that change nothing in the run."""

import logging
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from math import prod
from multiprocessing import get_context

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import nn

from swin_lab.data.loading import batch_labels
from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.batching import Batching, possible_batches, split_batch
from swin_lab.run.components import Data, Optimization
from swin_lab.run.memory import available_memory
from swin_lab.run.roll_call import started_from_outside
from swin_lab.run.trainer import Launch
from swin_lab.run.trial import Trial, largest_that_fits, saved_bytes, try_sizes
from swin_lab.training import Task

log = logging.getLogger("swin_lab")

GIVE_A_NUMBER = "give a number, or null for no limit"
OF_A_CPU = 0.5
"""Share of the free memory that all processes on a CPU may use."""
STATES = 3
"""Numbers that belong to a weight in an update: its gradient, and two moments of the optimizer."""
PER_SAVED_BYTE = 2
"""Bytes of memory on a CPU for a byte that autograd keeps for the backward pass: it has a gradient at some time."""


def build_trial(
    launch: Launch,
    optimization: Optimization,
    data: Data,
    task: Task,
    network: nn.Module,
    preprocessing: Preprocessing,
    global_batch: int,
) -> Trial:
    """Builds the trial of a run from its components."""
    shape = (preprocessing.channels, *preprocessing.img_size)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    copies = (optimization.ema is not None) + isinstance(launch.trainer.strategy, DDPStrategy)
    images = len(data.source.train.labels) + len(data.source.val.labels) if data.loader.cache == "device" else 0
    return Trial(
        network=network,
        task=task,
        optimizer=optimization.optimizer,
        precision=launch.trainer.precision_plugin,
        shape=shape,
        labels=batch_labels(data.source.train.labels[: global_batch // launch.world_size]),
        global_batch=global_batch,
        reserved=copies * weights + images * prod(shape),
    )


def find_batching(trial: Trial, launch: Launch, *, mixes: bool) -> Batching:
    """Finds the largest batch with which every device of a run can make an update, and prints it.

    On a GPU, updates are tried in processes of their own, so that weights, random numbers, the state of the optimizer and the
    memory of this process stay as they are. On a CPU, nothing reports that memory is scarce before the system ends a process:
    there, an image is counted with `PER_SAVED_BYTE` times the bytes that autograd keeps of it.

    Args:
        trial: an update of the run.
        launch: devices and processes of the run.
        mixes: whether images are mixed with other images of the batch on the same device.

    Raises:
        UserError: the strategy divides the network among devices, or not even the smallest batch fits.
    """
    strategy, trainer = launch.trainer.strategy, launch.trainer
    outside = started_from_outside(trainer)
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise UserError(
            f"max_device_batch=auto tries a whole network, which {type(strategy).__name__} divides; {GIVE_A_NUMBER}"
        )
    if trainer.num_nodes > 1 and not outside:
        raise UserError(f"max_device_batch=auto needs processes that torchrun or SLURM starts on all machines; {GIVE_A_NUMBER}")
    sizes = possible_batches(trial.global_batch, launch.world_size, mixes=mixes)
    if strategy.root_device.type == "cuda":
        largest = _largest_on(_own_devices(strategy, outside), trial, sizes)
    else:
        largest = _largest_in_memory(trial, sizes, launch.devices_per_node)
    if outside and launch.world_size > 1:  # Otherwise the first process decides for those that it starts.
        strategy.setup_environment()
        largest = int(strategy.reduce(torch.tensor(largest, device=strategy.root_device), reduce_op="min"))
    if largest == 0:
        raise UserError(
            f"max_device_batch=auto: an update with {sizes[0]} image{'s' * (sizes[0] > 1)} does not fit into the memory\n"
            "Choose a smaller model or image size, or set model.activation_checkpointing=true"
        )
    log.info("%-10s %s", "memory", f"max_device_batch=auto: {largest} of at most {sizes[-1]} images fit on each device")
    return split_batch(trial.global_batch, launch.world_size, largest, mixes=mixes)


def _largest_in_memory(trial: Trial, sizes: Sequence[int], processes: int) -> int:
    free = available_memory()
    if free is None:
        raise UserError(f"max_device_batch=auto: this system does not say how much memory is free; {GIVE_A_NUMBER}")
    few = sizes[0]
    if len(sizes) == 1:
        return few
    per_image = (saved_bytes(trial, sizes[1]) - saved_bytes(trial, few)) / (sizes[1] - few) * PER_SAVED_BYTE
    weights = sum(parameter.numel() * parameter.element_size() for parameter in trial.network.parameters())
    budget = free * OF_A_CPU / processes - trial.reserved - STATES * weights
    return largest_that_fits(sizes, lambda images: images * per_image <= budget)


def _own_devices(strategy: Strategy, outside: bool) -> list[torch.device]:
    """Returns the devices for which this process decides."""
    devices = getattr(strategy, "parallel_devices", None)
    return [strategy.root_device] if outside or not devices else list(devices)


def _largest_on(devices: Sequence[torch.device], trial: Trial, sizes: Sequence[int]) -> int:
    """Returns the largest size that fits on all GPUs, which are tried at the same time."""
    try:
        content = pickle.dumps(trial)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"max_device_batch=auto: the network cannot be copied to another process: {error}\n{GIVE_A_NUMBER}"
        ) from error
    try:
        with ProcessPoolExecutor(len(devices), mp_context=get_context("spawn")) as processes:
            return min(processes.map(partial(try_sizes, content, tuple(sizes)), devices))
    except BrokenProcessPool as error:
        raise UserError(f"max_device_batch=auto: the process that tried it was ended; {GIVE_A_NUMBER}") from error
