"""A training step never makes the host wait for the device, so that a GPU always has work queued.

The host waits where a value is read (`item`, `if tensor:`), which calls `aten::_local_scalar_dense` on every device, and where
a tensor is made from Python numbers on a GPU; on a CPU, such a tensor passes `aten::lift_fresh`.
"""

from collections import Counter

import lightning
import pytest
import torch
from engines import adamw, classification_engine
from lightning import Callback
from lightning.pytorch.loggers import CSVLogger
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.training import Constant, DataTimeMonitor, EmaConfig, EpochSummary, ProgressBar, ProgressLines

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

UPDATES, LOGGED = 12, 5


class Reads(TorchDispatchMode):
    """Counts the calls of an operator."""

    def __init__(self, operator):
        super().__init__()
        self.operator = operator
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += func is self.operator
        return func(*args, **(kwargs or {}))


class CallsByUpdate(Callback):
    """Notes the number of calls from the start of one batch to the start of the next, by the update."""

    def __init__(self, reads):
        self.reads = reads
        self.by_update = Counter()
        self._before = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.by_update[trainer.global_step] = self.reads.calls - self._before
        self._before = self.reads.calls


def calls_by_update(operator, tmp_path, progress, **options):
    """Trains a small network with everything that a run has; returns the calls before every update but the first."""
    config = SwinConfig(
        img_size=32, embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, num_classes=5, drop_path_rate=0.5
    )
    schedule, ema = Constant(warmup_epochs=0, warmup_lr_ratio=1.0), EmaConfig(decay=0.9)
    module = classification_engine(SwinTransformer(config), 5, optimizer=adamw(), schedule=schedule, ema=ema)
    images = DataLoader(TensorDataset(torch.randn(4 * UPDATES, 3, 32, 32), torch.arange(4 * UPDATES) % 5), batch_size=4)
    reads = Reads(operator)
    seen = CallsByUpdate(reads)
    run = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        log_every_n_steps=LOGGED,
        gradient_clip_val=1.0,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[seen, EpochSummary(4), DataTimeMonitor(lambda: 0.0, ""), progress],
        **options,
    )
    with reads:
        run.fit(module, images)
    return {update: seen.by_update[update] for update in range(2, UPDATES)}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_no_value_is_read_but_in_updates_that_are_logged(precision, tmp_path):
    read = torch.ops.aten._local_scalar_dense.default
    calls = calls_by_update(read, tmp_path, ProgressLines(), enable_progress_bar=False, precision=precision)
    assert {update for update, count in calls.items() if count} == {5, 10}


def test_a_progress_bar_reads_the_loss_only_in_updates_that_are_logged(tmp_path):
    calls = calls_by_update(torch.ops.aten._local_scalar_dense.default, tmp_path, ProgressBar())
    assert {update for update, count in calls.items() if count} == {5, 10}


def test_the_only_tensor_of_python_numbers_is_the_learning_rate_which_stays_on_the_host(tmp_path):
    calls = calls_by_update(torch.ops.aten.lift_fresh.default, tmp_path, ProgressLines(), enable_progress_bar=False)
    assert set(calls.values()) == {1}
