"""The context in which the network of a training is evaluated, where its weights do not change."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn

from swin_lab.models import packed_weights
from swin_lab.models.lora import merged
from swin_lab.run.settings import CompileChoice
from swin_lab.training.sharding import gathered


def constant_weights(
    compiled: CompileChoice, *, sharded: bool, adapted: bool
) -> Callable[[nn.Module], AbstractContextManager[None]] | None:
    """Returns a function that makes the context of a network; None if its layers are computed as in training.

    Args:
        compiled: whether the network is compiled.
        sharded: whether the weights are distributed over the processes.
        adapted: whether it has adapters.
    """
    if sharded:
        return gathered
    if compiled:
        return None
    return _merged_and_packed if adapted else packed_weights


@contextmanager
def _merged_and_packed(network: nn.Module) -> Iterator[None]:
    """Computes with the sums of weights and adapters, as an evaluation of the checkpoint does, and packs them."""
    with merged(network) as sums, packed_weights(sums), packed_weights(network):
        yield
