"""The checkpoint that `calibrate=FILE.ckpt` writes: the evaluated weights, of which the last layer is divided by a temperature.

Whatever reads, converts or exports the file then has the calibrated logits. The temperature is in the metadata, too, so that an
evaluation can tell what it has changed.
"""

from dataclasses import replace
from pathlib import Path

import torch
from lightning import Trainer
from torch import nn

from swin_lab.errors import UserError
from swin_lab.metadata import METADATA_KEY, NETWORK_PREFIX, FittedTemperature, Metadata
from swin_lab.models import SwinTransformer
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.model import SWIN
from swin_lab.run.restore import Restored
from swin_lab.run.sharding import sharder
from swin_lab.run.temperature import Calibration, stored_temperature
from swin_lab.tasks import Classification
from swin_lab.training import Task
from swin_lab.training.checkpoint_io import WholeFileIO
from swin_lab.weights import Contents

SUFFIX = ".ckpt"


def calibration_target(given: str | None, task: Task, trainer: Trainer) -> Path | None:
    """Returns the file of `calibrate=`; None if none is given.

    Raises:
        UserError: it exists, cannot be written or has another ending, the task has no classes, or weights are rounded or split.
    """
    if given is None:
        return None
    target = Path(given).expanduser().absolute()
    where = f"calibrate={given}"
    if target.suffix != SUFFIX:
        raise UserError(f"{where}: choose the ending {SUFFIX}")
    if target.exists():
        raise UserError(f"{where} exists already; nothing was written. Remove it or choose another name")
    if not target.parent.is_dir():
        raise UserError(f"{where}: {target.parent} is not a folder; create it first")
    if not isinstance(task, Classification):
        raise UserError(f"{where}: a temperature is for the logits of a classification, not of a {type(task).__name__}")
    if trainer.precision in ("bf16-true", "16-true"):
        raise UserError(f"{where}: precision={trainer.precision} rounds all weights; choose 32-true, or a mixed precision")
    if sharder(trainer):
        raise UserError(f"{where}: the weights are sharded over the devices; choose another trainer, such as trainer=default")
    return target


def last_layer(network: nn.Module, preprocessing: Preprocessing) -> str:
    """Returns the name of the linear layer whose outputs are the logits; doubling it doubles them, as is tried on two images.

    Raises:
        UserError: there is none.
    """
    device = next(network.parameters()).device
    shape = (2, preprocessing.channels, *preprocessing.img_size)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        logits = network.eval()(images)
        linear = [name for name, layer in network.named_modules() if _gives(layer, logits.shape[1])]
        for name in linear[-1:]:
            layer = network.get_submodule(name)
            _multiply(layer, 2)
            doubled = network(images)
            _multiply(layer, 0.5)  # exact
            if torch.allclose(doubled, 2 * logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max())):
                return name
    raise UserError(
        f"calibrate: a {type(network).__name__} has no linear layer whose outputs are its logits; it stays as it is"
    )


def _gives(layer: nn.Module, num_classes: int) -> bool:
    return isinstance(layer, nn.Linear) and layer.out_features == num_classes


def _multiply(layer: nn.Module, factor: float) -> None:
    for parameter in layer.parameters(recurse=False):
        parameter.mul_(factor)


def write_calibrated(
    target: Path,
    contents: Contents,
    restored: Restored,
    layer: str,
    preprocessing: Preprocessing,
    calibration: Calibration,
    fingerprint: str,
) -> None:
    """Writes a checkpoint that differs from the evaluated one by its last layer: the weights that were evaluated, and metadata.

    Args:
        target: a new file.
        contents: the evaluated checkpoint.
        restored: what was made of it.
        layer: the last layer.
        preprocessing: that of the evaluation.
        calibration: has the temperature.
        fingerprint: of the images that it was fitted on.

    Raises:
        OSError: the file cannot be written.
    """
    network, metadata = restored.network, contents.metadata
    stored = stored_temperature(contents)
    factor = (1.0 if stored is None else stored.temperature) / calibration.temperature
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    for name in (f"{layer}.weight", f"{layer}.bias"):
        if name in tensors:
            tensors[name] = (tensors[name].double() * factor).to(tensors[name].dtype)
    if isinstance(network, SwinTransformer):
        node = {"_target_": SWIN, **network.config.as_dict()}
        metadata = replace(metadata, model=node) if metadata is not None else Metadata(model=node)
    fitted = FittedTemperature(temperature=calibration.temperature, images=fingerprint)
    assert metadata is not None  # Networks of other classes are those of a run.
    written = replace(metadata, class_names=restored.class_names, preprocessing=preprocessing, calibration=fitted)
    state = {f"{NETWORK_PREFIX}{name}": tensor for name, tensor in tensors.items()}
    WholeFileIO().save_checkpoint({"state_dict": state, METADATA_KEY: written.as_dict()}, target)
