"""A run that stops anywhere, and goes on from its last checkpoint, does and logs what one does that does not stop."""

import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from engines import adamw, classification_engine
from lightning import Callback
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from swin_lab.data.sampling import SampleIndex, Start, TrainSampler
from swin_lab.interruption import InterruptedRunError, Interruption
from swin_lab.training import (
    CheckpointConfig,
    Constant,
    EmaConfig,
    Engine,
    LastCheckpoint,
    Position,
    WholeFileIO,
)
from swin_lab.training.engine import RUN_STATE_KEY

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

IMAGES = torch.randn(40, 3, 2, 2, generator=torch.Generator().manual_seed(1))
RUNS: dict[str, dict[str, Any]] = {
    "epochs": {"max_epochs": 3},
    "evaluations within epochs": {"max_epochs": 2, "val_check_interval": 2},
    "max_steps": {"max_epochs": -1, "max_steps": 13},
    "max_steps within an epoch that is evaluated": {"max_epochs": 3, "max_steps": 12, "val_check_interval": 0.5},
    "accumulation": {"max_epochs": 3, "accumulate_grad_batches": 2},
    "evaluations of some epochs": {"max_epochs": 4, "check_val_every_n_epoch": 2},
    "evaluations across epochs": {"max_epochs": 4, "check_val_every_n_epoch": None, "val_check_interval": 7},
    "part of the batches": {"max_epochs": 3, "limit_train_batches": 3},
}


class Net(nn.Module):
    """A linear layer with dropout, whose random numbers must not depend on the history of the process."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.layer(images.flatten(1)), 0.3, self.training)


class Images(Dataset[Any]):
    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, sample: SampleIndex) -> tuple[torch.Tensor, int]:
        return IMAGES[sample.image_index] + 0.01 * sample.epoch, sample.image_index % 5


class StopAt(Callback):
    """Gives a signal at the n-th of all moments at which hooks are called."""

    def __init__(self, interruption: Interruption, moment: int) -> None:
        self.interruption, self.left = interruption, moment

    def _count(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            self.interruption.name = "SIGTERM"

    on_train_epoch_start = on_train_batch_start = on_train_batch_end = on_validation_batch_start = _count  # type: ignore[assignment]
    on_validation_end = on_train_epoch_end = _count  # type: ignore[assignment]


class Records(Logger):
    name, version = "records", "0"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, {key: float(value) for key, value in metrics.items()}))

    def log_hyperparams(self, *_: object) -> None: ...


def train(folder: Path, options: dict[str, Any], *, stop: int = 0, resume: bool = False) -> tuple[Engine, Records, bool]:
    """Returns the engine, what was logged, and whether the run has reached its end."""
    accumulate = options.get("accumulate_grad_batches", 1)
    schedule = Constant(warmup_epochs=0, warmup_lr_ratio=1.0)
    engine = classification_engine(Net(), 5, optimizer=adamw(), schedule=schedule, ema=EmaConfig(decay=0.9))
    file, start = folder / "last.ckpt", Start()
    if resume:
        position = Position(**torch.load(file, weights_only=True)[RUN_STATE_KEY]["position"])
        start = Start(position.epoch, position.updates_of_epoch)
    interruption, records = Interruption(), Records()
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=[records],
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        plugins=[WholeFileIO()],
        callbacks=[
            StopAt(interruption, stop),
            LastCheckpoint(folder, CheckpointConfig(), interruption, read=Path.stat, write_settings=lambda: None),
        ],
        **options,
    )
    training = DataLoader(Images(), sampler=TrainSampler(40, 8 * accumulate, 0, 1, 0, start=start), batch_size=8)
    validation = DataLoader(Images(), sampler=[SampleIndex(0, i) for i in range(20)], batch_size=8)
    try:
        trainer.fit(engine, training, validation, ckpt_path=file if resume else None, weights_only=True)
    except InterruptedRunError:
        return engine, records, False
    return engine, records, True


def state(engine: Engine) -> list[torch.Tensor]:
    assert engine.ema is not None
    return [*engine.network.state_dict().values(), *engine.ema.network.state_dict().values()]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("stops", [(2, 7, 12), (3, 9, 13), (5, 10, 17), (6, 11, 24)], ids=str)
def test_a_run_that_is_stopped_three_times_does_and_logs_what_an_unstopped_one_does(
    name: str, stops: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Equal to the bit; the moments are counted from each start."""
    caplog.set_level(logging.ERROR)
    expected, logged, _ = train(tmp_path / "unstopped", RUNS[name])
    rows: list[Any] = []
    for stop in (*stops, 0):
        resume = (tmp_path / "last.ckpt").is_file()
        if not resume:
            rows = []  # It starts again.
        engine, records, finished = train(tmp_path, RUNS[name], stop=stop, resume=resume)
        rows += records.rows
        if finished:
            break
    assert rows == logged.rows
    assert all(torch.equal(*pair) for pair in zip(state(engine), state(expected), strict=True))


def test_a_run_goes_on_with_another_number_of_batches_per_update() -> None:
    position = Position(epoch=2, updates=13, batches=6, accumulate=2, evaluation="none")
    assert (position.updates_of_epoch, position.batches_with(2), position.batches_with(1)) == (3, 6, 3)


def test_two_processes_share_the_order_of_a_resumed_epoch() -> None:
    whole = [list(TrainSampler(20, 4, rank, 2, 0)) for rank in (0, 1)]
    rest = [list(TrainSampler(20, 4, rank, 2, 0, start=Start(0, 3))) for rank in (0, 1)]
    assert rest == [indices[6:] for indices in whole]
    sampler = TrainSampler(20, 4, 0, 2, 0, start=Start(0, 3))
    sampler.set_epoch(1)
    assert len(list(sampler)) == len(sampler) == 10
