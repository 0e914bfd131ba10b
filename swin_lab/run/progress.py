"""Finds a process whose main thread does not go on, although it lives and all others wait for it."""

import multiprocessing
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

STANDARD_LIBRARY = {Path(module.__file__ or "").parent for module in (threading, multiprocessing)}
"""Folders of the modules of Python in which a thread waits."""
DISTRIBUTED = Path(torch.distributed.__file__).parent
"""Folder of the functions of torch in which a thread waits for other processes."""
BACKWARD = "_engine_run_backward"
"""Function of torch within which a backward pass happens; DistributedDataParallel ends it with an operation of all."""


@dataclass(frozen=True, order=True)
class Place:
    """Says how far the main thread of a process has come in training and evaluation."""

    steps: int = 0
    """Number of places passed that all processes pass equally often: the parts of a training batch, the ends of evaluations."""
    batches: int = 0
    """Number of evaluated batches, of which a process may have more than another."""
    waits: bool = False
    """Whether the main thread is within an operation of all processes, or within a backward pass, which contains some."""

    def __str__(self) -> str:
        return f"{self.steps} {self.batches} {int(self.waits)}"

    @classmethod
    def of(cls, text: str) -> "Place":
        """Returns the place that `str` has written."""
        steps, batches, waits = map(int, text.split())
        return cls(steps, batches, bool(waits))


class Progress(Callback):
    """Counts how far the main thread of this process has come."""

    def __init__(self) -> None:
        self._passed = Place()

    @property
    def place(self) -> Place:
        """Returns how far it has come, and whether it waits for other processes at this moment."""
        return replace(self._passed, waits=main_thread_waits())

    def _step(self) -> None:
        self._passed = Place(self._passed.steps + 1, self._passed.batches)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._step()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        self._step()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._step()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._passed = Place(self._passed.steps, self._passed.batches + 1)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step()


class Comparison:
    """Compares how far the processes of a run have come.

    A process is behind another one that has passed more places, or that has passed as many and waits for it. A hang within the
    compiled code of an operation cannot be told from waiting.

    Args:
        limit_s: seconds after which a process is stuck that stays where it is, behind another one.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._places: dict[int, Place] = {}
        self._since: dict[int, float] = {}

    def forget(self) -> None:
        """Counts time from now on: this process itself was stopped, for example by Ctrl-Z."""
        self._since.clear()

    def stuck(self, places: Mapping[int, Place]) -> int | None:
        """Takes note of the places of all processes that run, by rank.

        Returns:
            The rank of the one that is stuck, of several the one furthest behind. If None, there is none.
        """
        now, furthest = monotonic(), max((place.steps, place.waits) for place in places.values())
        for rank, place in places.items():
            # It goes on, or it may be the one that waits.
            if place != self._places.get(rank) or (place.steps, place.waits) == furthest:
                self._since[rank] = now
            self._since.setdefault(rank, now)
        self._places = dict(places)
        stuck = [rank for rank in places if now - self._since[rank] > self.limit_s]
        return min(stuck, key=lambda rank: places[rank], default=None)


def main_thread_waits() -> bool:
    """Returns whether the main thread of this process executes an operation of all processes, or a backward pass."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return DISTRIBUTED in Path(frame.f_code.co_filename).parents or frame.f_code.co_name == BACKWARD


def main_thread_is_at() -> str:
    """Returns file, line and function that the main thread of this process executes, or that called the standard library."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    while frame.f_back is not None and Path(frame.f_code.co_filename).parent in STANDARD_LIBRARY:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"
