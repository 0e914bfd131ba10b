"""Checks of components of a training run that contradict each other, although each is valid by itself."""

from collections.abc import Sequence

from lightning import Callback
from torch import nn

from swin_lab.run.components import Optimization
from swin_lab.run.settings import TrainConfig
from swin_lab.run.trainer import Launch, build_trainer
from swin_lab.training import Freezing


def check_together(
    callbacks: Sequence[Callback], config: TrainConfig, launch: Launch, optimization: Optimization, network: nn.Module
) -> None:
    """Raises UserError if optimizer, trainer or callbacks contradict the network or each other."""
    optimization.optimizer.groups(network, config.global_batch)  # raises what it would raise in a started run
    build_trainer(config.trainer, launch.precision, callbacks=list(callbacks))  # Lightning refuses what cannot be combined.
    for callback in callbacks:
        if isinstance(callback, Freezing):
            callback.check(network)
