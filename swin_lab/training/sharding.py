"""Full sharding of weights, gradients and optimizer state over all devices: PyTorch's FSDP2 by Lightning's strategy.

Every file holds whole tensors in the layout of a run on one device, so that any strategy reads the checkpoints of any other.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
FROM_WHOLE = StateDictOptions(full_state_dict=True)


class FullyShardedStrategy(ModelParallelStrategy):
    """Shards every weight over all devices; checkpoints are whole files.

    Args:
        process_group_backend: of torch.distributed. If None, that of the device.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, process_group_backend=process_group_backend)

    def setup_environment(self) -> None:
        """Connects the processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the whole state in the first process, with the numbers of parameters that the optimizer itself uses."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        assert self.model is not None
        if not plain.state:  # PyTorch would make a step to have a state, and count it.
            return plain.state_dict()
        state: dict[str, Any] = get_optimizer_state_dict(self.model, plain, options=WHOLE)
        if not state:
            return {}
        numbers = {name: number for number, name in enumerate(chain(*(group["params"] for group in state["param_groups"])))}
        return {
            "state": {numbers[name]: values for name, values in state["state"].items()},
            "param_groups": [
                group | {"params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]
            ],
        }

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a whole file; every process takes its part of the weights and of the optimizer's state."""
        checkpoint: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)
        assert self.model is not None
        set_model_state_dict(self.model, checkpoint["state_dict"], options=FROM_WHOLE)
        for optimizer, state in zip(self.optimizers, checkpoint.get("optimizer_states", ()), strict=False):
            if not state["state"]:  # The run has made no update.
                continue
            names = {id(parameter): name for name, parameter in self.model.named_parameters()}
            named = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
            saved = list(chain(*(group["params"] for group in state["param_groups"])))
            name_of = dict(zip(saved, chain(*named), strict=True))
            set_optimizer_state_dict(
                self.model,
                optimizer,
                {
                    "state": {name_of[number]: values for number, values in state["state"].items()},
                    "param_groups": [
                        group | {"params": given} for group, given in zip(state["param_groups"], named, strict=True)
                    ],
                },
                options=FROM_WHOLE,
            )
        return checkpoint


def shard(network: nn.Module, parts: Sequence[nn.Module], device: torch.device) -> None:
    """Shards a network in place over all processes, unless it is sharded.

    Args:
        network: the network.
        parts: its repeated parts, of which one at a time is whole on a device.
        device: type of the devices.
    """
    if isinstance(network, FSDPModule):
        return
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for part in parts:
        fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh)


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Has whole weights on every device, so that processes can evaluate different numbers of batches."""
    sharded = [module for module in network.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(True, recurse=False)  # Otherwise `reshard` does nothing after a forward pass.
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """Returns all of a sharded tensor, which every process asks for; any other tensor is returned as it is."""
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """Returns a whole tensor, sharded as another one is."""
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def load_whole(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads whole tensors into a network, sharded or not."""
    set_model_state_dict(network, dict(tensors), options=FROM_WHOLE)
