"""Which parts of a network are sharded over the devices of a run."""

from collections.abc import Callable

from lightning import Trainer
from torch import nn

from swin_lab.models.swin import SwinBlock
from swin_lab.training.sharding import FullyShardedStrategy, shard


def sharder(trainer: Trainer) -> Callable[[nn.Module], None] | None:
    """Returns a function that shards a network; None if the strategy keeps all of it in every process."""
    if not isinstance(trainer.strategy, FullyShardedStrategy):
        return None
    device = trainer.strategy.root_device
    return lambda network: shard(network, [part for part in network.modules() if isinstance(part, SwinBlock)], device)
