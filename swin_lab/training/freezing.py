"""Training only a part of the network, for the whole run or for its first epochs."""

import logging

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from swin_lab.errors import UserError
from swin_lab.validation import PositiveInt, check_value

log = logging.getLogger("swin_lab.training")


class Freezing(Callback):
    """Freezes a part of the network: it gets no gradients and no drop path.

    The optimizer knows every parameter from the start, so that an unfrozen part is trained with the current learning rate.

    Args:
        stages: number of stages that are frozen, together with the patch embedding. If None, all but the head (linear probing).
        epochs: number of epochs from the start of the run. If None, the whole run.

    Raises:
        UserError: a value is invalid, or (when the run starts) the network cannot freeze its stages.
    """

    def __init__(self, stages: PositiveInt | None = None, epochs: PositiveInt | None = None) -> None:
        self.stages = check_value("callbacks.freezing.stages", stages, PositiveInt | None)
        self.epochs = check_value("callbacks.freezing.epochs", epochs, PositiveInt | None)
        self._frozen = False
        self._trained: set[str] = set()
        """Names of the parameters that were trained before; of a network with adapters, not all."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # It must precede DDP, which registers the parameters that require gradients.
            self._freeze(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._unfreeze(trainer, pl_module)  # A run that is resumed within an epoch does not start this epoch again.

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._unfreeze(trainer, pl_module)

    def _unfreeze(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Trains everything from now on if the epoch for it has come."""
        if not self._frozen or self.epochs is None or trainer.current_epoch < self.epochs:
            return
        network = pl_module.network
        assert isinstance(network, nn.Module)
        network.freeze_stages(0)  # type: ignore[operator]
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in self._trained)
        self._frozen = False
        whole = all(parameter.requires_grad for parameter in network.parameters())
        what = "the whole network is" if whole else f"{len(self._trained)} tensors are"
        log.info("unfrozen   %s trained from epoch %d", what, trainer.current_epoch + 1)
        if isinstance(
            trainer.strategy, DDPStrategy
        ):  # DDP only exchanges gradients of parameters that required them at its setup.
            trainer.strategy.model = pl_module
            trainer.strategy.configure_ddp()

    def check(self, network: nn.Module) -> None:
        """Raises UserError if the network cannot freeze its stages."""
        needed = ("freeze_stages", "stages", "norm") if self.stages is None else ("freeze_stages",)
        missing = [name for name in needed if not hasattr(network, name)]
        if missing:
            kind = "method" if missing[0] == "freeze_stages" else "attribute"
            raise UserError(f"callbacks.freezing: a {type(network).__name__} has no {kind} {missing[0]}; choose callbacks=none")
        number = len(network.stages) if hasattr(network, "stages") else None  # type: ignore[arg-type]
        if self.stages is not None and number is not None and self.stages > number:
            raise UserError(f"callbacks.freezing: {self.stages} stages cannot be frozen; the model has {number}")

    def _freeze(self, pl_module: LightningModule) -> None:
        network = pl_module.network
        assert isinstance(network, nn.Module)
        head_only = self.stages is None
        self._trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        network.freeze_stages(len(network.stages) if head_only else self.stages)  # type: ignore[operator, arg-type]
        if head_only:
            network.norm.requires_grad_(False)
        self._frozen = True
        until = "" if self.epochs is None else f" for {self.epochs} epoch{'s' * (self.epochs > 1)}"
        learning = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        log.info("frozen     %s%s: %s trainable parameters", _describe(self.stages), until, f"{learning:,}")


def _describe(stages: int | None) -> str:
    return "all but the head" if stages is None else f"patch embedding and {stages} stages"
