"""Training only a part of the network, for the whole run or its first epochs."""

import logging

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from swin_lab.errors import UserError, is_whole

log = logging.getLogger("swin_lab.training")


class Freezing(Callback):
    """Keeps a part of the network as it is: no gradients and no drop path there.

    The optimizer knows every parameter from the start, so that a part that thaws joins with the learning rate of the moment.

    Args:
        stages: patch embedding and so many stages are frozen; None for all but the head (linear probing).
        epochs: for how many epochs from the start; None for the whole run.

    Raises:
        UserError: a number that cannot be; and, when the run starts, a network that cannot freeze its stages.
    """

    def __init__(self, stages: int | None = None, epochs: int | None = None) -> None:
        for name, value in (("stages", stages), ("epochs", epochs)):
            if value is not None and (not is_whole(value) or value < 1):
                raise UserError(f"callbacks.freezing.{name}={value} is no whole number above zero")
        self.stages = stages
        self.epochs = epochs
        self._frozen = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before DDP counts what learns
            self._freeze(pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._frozen or self.epochs is None or trainer.current_epoch < self.epochs:
            return
        network = pl_module.network
        assert isinstance(network, nn.Module)
        network.freeze_stages(0)  # type: ignore[operator]
        network.requires_grad_(True)
        self._frozen = False
        log.info("thawed     the whole network learns from epoch %d on", trainer.current_epoch + 1)
        if isinstance(trainer.strategy, DDPStrategy):  # it exchanges gradients only of what learned when it was made
            trainer.strategy.model = pl_module
            trainer.strategy.configure_ddp()

    def _freeze(self, pl_module: LightningModule) -> None:
        network = pl_module.network
        if not callable(getattr(network, "freeze_stages", None)):
            raise UserError(f"callbacks.freezing: a {type(network).__name__} has no stages to freeze; use a SwinTransformer")
        assert isinstance(network, nn.Module)
        head_only = self.stages is None
        network.freeze_stages(len(network.stages) if head_only else self.stages)  # type: ignore[operator, arg-type]
        if head_only:
            network.norm.requires_grad_(False)
        self._frozen = True
        until = "" if self.epochs is None else f" for {self.epochs} epochs"
        learning = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        log.info("frozen     %s%s: %s parameters learn", _part(self.stages), until, f"{learning:,}")


def _part(stages: int | None) -> str:
    return "all but the head" if stages is None else f"patch embedding and {stages} stages"
