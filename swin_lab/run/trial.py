"""One update of a run, tried with any number of images on copies that are thrown away."""

import gc
import pickle
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn

from swin_lab.data.draws import Draws
from swin_lab.training import OptimizerConfig, Task

OF_A_GPU = 0.95
"""Share of the memory of a GPU that a trial may use."""


@dataclass(frozen=True)
class Trial:
    """Describes an update of a run, which can be tried with any number of images."""

    network: nn.Module
    task: Task
    optimizer: OptimizerConfig
    precision: Precision
    shape: tuple[int, int, int]
    """Channels, height and width of the images."""
    labels: Tensor
    """Labels of the first images, at least as many as a device can get."""
    global_batch: int
    reserved: int
    """Bytes on the device that the run needs besides: moving average, buffers for gradients, resident images."""

    def prepared(self, device: torch.device) -> nn.Module:
        """Returns a copy of the network on a device, in the precision of the run."""
        return self.precision.convert_module(deepcopy(self.network).to(device).train())

    def loss(self, network: nn.Module, images: int, device: torch.device) -> Tensor:
        """Computes the loss of a batch of black images."""
        pixels = self.precision.convert_input(torch.zeros(images, *self.shape, device=device))
        numbers = Draws(0, 0, np.arange(images), np.zeros(images))
        drawn = [part.to(device) for part in self.task.draw(numbers, self.shape[1:])]
        batch = (pixels, self.labels[:images].to(device), torch.arange(images, device=device), *drawn)
        with self.precision.forward_context():
            return self.task.training_loss(network, batch, batch_seed=0)

    def update(self, images: int, device: torch.device) -> None:
        """Makes one update of a copy of the network, with everything that a run has in memory then."""
        reserved = torch.empty(self.reserved, dtype=torch.uint8, device=device)
        network = self.prepared(device)
        optimizer = self.optimizer.build(network, self.global_batch, False)
        for _ in range(2):  # The optimizer has its state after the first one.
            self.loss(network, images, device).backward()
            optimizer.step()
            optimizer.zero_grad()
        del reserved


def largest_that_fits(sizes: Sequence[int], fits: Callable[[int], bool]) -> int:
    """Returns the largest of ascending sizes that fits, by bisection; 0 if none does."""
    low, high = 0, len(sizes)  # All below low fit, and none from high on.
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(sizes[middle]) else (low, middle)
    return sizes[low - 1] if low else 0


def saved_bytes(trial: Trial, images: int) -> int:
    """Returns how many bytes autograd keeps for the backward pass of a batch on the CPU, parameters excluded."""
    device = torch.device("cpu")
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # It lives on, so that its address is not used again.
        return tensor

    with torch.random.fork_rng(devices=[]):
        network = trial.prepared(device)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = trial.loss(network, images, device)
    del loss
    for parameter in network.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in kept.values())


def try_sizes(content: bytes, sizes: Sequence[int], device: torch.device) -> int:
    """Returns the largest size with which an update fits on a device; runs in a process of its own."""
    trial: Trial = pickle.loads(content)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.set_per_process_memory_fraction(OF_A_GPU, device)
    return largest_that_fits(sizes, partial(_fits, trial, device))


def _fits(trial: Trial, device: torch.device, images: int) -> bool:
    try:
        trial.update(images, device)
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()  # The error has kept the tensors of its frames.
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True
