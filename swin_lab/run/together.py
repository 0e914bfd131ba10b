"""Checks of components of a training run that contradict each other, although each is valid by itself."""

import logging
from collections.abc import Sequence

import torch
from lightning import Callback
from torch import nn

from swin_lab.data import ImageData
from swin_lab.errors import UserError
from swin_lab.models import SwinTransformer
from swin_lab.models.feature_model import FeatureModel
from swin_lab.run.components import Optimization
from swin_lab.run.instantiate import first_line
from swin_lab.run.settings import TrainConfig
from swin_lab.run.trainer import Launch, build_trainer
from swin_lab.training import Freezing

log = logging.getLogger("swin_lab")


def check_together(
    callbacks: Sequence[Callback],
    config: TrainConfig,
    launch: Launch,
    optimization: Optimization,
    network: nn.Module,
    data_module: ImageData,
    channels: int,
) -> None:
    """Raises UserError if optimizer, trainer, data or callbacks contradict the network or each other."""
    optimization.optimizer.groups(network, config.global_batch)  # raises what it would raise in a started run
    build_trainer(config.trainer, launch.precision, callbacks=list(callbacks))  # Lightning refuses what cannot be combined.
    for callback in callbacks:
        if isinstance(callback, Freezing):
            check_freezing(callback, config, network)
    if (progressive := data_module.progressive) is not None:
        sizes = [progressive.at(epoch) for epoch, _ in progressive.sizes]
        last, epochs = progressive.sizes[-1][0], config.trainer.get("max_epochs")
        if isinstance(epochs, int) and 0 < epochs <= last:
            log.warning("data.size_by_epoch: epoch %d, counted from 0, is never reached; the run has %d", last, epochs)
        if isinstance(network, SwinTransformer | FeatureModel):
            check_patches(network.config.patch_size, sizes)
        else:
            check_image_sizes(network, sizes, channels)


def check_freezing(freezing: Freezing, config: TrainConfig, network: nn.Module) -> None:
    """Raises UserError if a network cannot freeze its stages, or if they have adapters, or random weights that no trial wants.

    Networks of other classes may have weights of their own.
    """
    if isinstance(network, FeatureModel) and freezing.stages is None:
        raise UserError(
            "callbacks.freezing keeps all but the head, and task.features trains maps of the stages\n"
            "Set task.features=0, or callbacks.freezing.stages to the number of frozen stages"
        )
    freezing.check(network.model if isinstance(network, FeatureModel) else network)
    stages = len(network.config.depths) if isinstance(network, SwinTransformer | FeatureModel) else None
    if freezing.stages in (None, stages) and freezing.epochs is None and (rank := (config.model.get("lora") or {}).get("rank")):
        raise UserError(
            f"callbacks.freezing keeps the adapters of model.lora.rank={rank} at their start; choose one of them, or "
            "callbacks=unfreeze to train the head alone first"
        )
    random = config.weights is None and stages is not None
    if random and config.transfer.get("required") is None:
        raise UserError(
            "callbacks.freezing keeps weights of the network as they are, and they are random here; add weights=FILE\n"
            "For a trial with random weights, add transfer.required=false"
        )


def check_patches(patch_size: int, sizes: Sequence[tuple[int, int]]) -> None:
    """Raises UserError if images of an epoch are smaller than a patch."""
    for height, width in sizes:
        if min(height, width) < patch_size:
            raise UserError(
                f"data.size_by_epoch: images of {height}x{width} pixels are smaller than a patch, {patch_size}x{patch_size}; "
                "choose larger ones"
            )


def check_image_sizes(network: nn.Module, sizes: Sequence[tuple[int, int]], channels: int) -> None:
    """Raises UserError unless a network takes images of every size, which not all of other libraries do."""
    was_training = network.training
    network.eval()
    try:
        for height, width in sizes:
            with torch.no_grad():
                network(torch.zeros(1, channels, height, width))
    except Exception as error:  # A network of a library raises anything.
        raise UserError(
            f"data.size_by_epoch: a {type(network).__name__} takes no images of {height}x{width} pixels: {first_line(error)}\n"
            "Choose a Swin Transformer, another network that takes any size, or data.size_by_epoch=null"
        ) from error
    finally:
        network.train(was_training)
