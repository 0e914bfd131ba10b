"""The callback that keeps what a task predicts for each image of an evaluation outside the training."""

from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from swin_lab.training.engine import Engine

Columns = dict[str, np.ndarray]
"""Name -> (N,) or (N, K), one row per image, in the order of the set."""

INDEX = "index"
"""Column with the positions of the images in their set."""
OUTPUT = "output"
"""Column of the outputs of the network until they are separated from the predictions."""


class PredictionCollector(Callback):
    """Collects the predictions of all processes; an evaluation within a training is left alone.

    They are those of the weights whose metric is monitored, and stay on the device until the evaluation ends.

    Args:
        keep_outputs: whether the outputs of the network, such as logits, are kept in the memory of the host, too.
    """

    def __init__(self, keep_outputs: bool = False) -> None:
        self.keep_outputs = keep_outputs
        self.outputs: np.ndarray | None = None
        """(N, C) one row for each row of `columns`; None if they are not kept."""
        self.columns: Columns = {}
        """The predictions of the last evaluation, in every process; empty for a task without predictions."""
        self._parts: list[dict[str, Tensor]] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parts = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, Engine)
        if trainer.state.fn == TrainerFn.VALIDATING and outputs is not None:
            output = outputs[pl_module.monitored]
            kept = {OUTPUT: output.detach().float().cpu()} if self.keep_outputs else {}
            self._parts.append({**pl_module.task.predictions(output, batch), **kept})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        names = self._parts[0] if self._parts else {}
        own = {name: torch.cat([part[name] for part in self._parts]).cpu().numpy() for name in names}
        self._parts = []
        columns = _in_order(_of_all_processes(own))
        self.outputs = columns.pop(OUTPUT, None)
        self.columns = columns


def _of_all_processes(own: Columns) -> Columns:
    if not torch.distributed.is_initialized():
        return own
    gathered: list[Columns] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, own)
    filled = [columns for columns in gathered if columns]  # A process may have had no image.
    return {name: np.concatenate([columns[name] for columns in filled]) for name in (filled[0] if filled else {})}


def _in_order(columns: Columns) -> Columns:
    if INDEX not in columns:
        return columns
    _, first = np.unique(columns[INDEX], return_index=True)
    return {name: values[first] for name, values in columns.items()}
