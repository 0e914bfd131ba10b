"""The callback that names the images of an update with a NaN or infinite loss or gradient, and writes what reproduces it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from swin_lab.metadata import METADATA_KEY, NETWORK_PREFIX
from swin_lab.training.checkpoint_io import WholeFileIO
from swin_lab.training.engine import Engine
from swin_lab.training.nonfinite import Found, NonFiniteError

log = logging.getLogger("swin_lab.training")

UPDATE_KEY, BATCHES_KEY = "nonfinite", "nonfinite_batches"
"""Keys of a dump: facts about the update, and its batches. Weights and metadata are those of a checkpoint."""
DUMP_FORMAT = 1
MAX_SKIPPED_DUMPS = 3
"""Number of dumps of skipped updates in a run directory at most."""
MAX_PROCESSES = 8
"""Number of processes at most whose batches are in a dump."""
SHOWN_IMAGES = 4
"""Number of images at most that a message names."""


@dataclass(frozen=True)
class Report:
    """Describes a bad update to the user."""

    images: str
    """Names of its images, those with NaN or infinite pixels first; some of them, if there are many."""
    dump: Path | None
    """The dump. If None, it was not or could not be written."""


class NonFiniteDumps(Callback):
    """Writes `nonfinite_UPDATE.pt` for the update that ends a run and for the first skipped ones, and logs those.

    A dump contains the weights before the update, the batches as the task got them, their seeds and the names of their images,
    of every process whose loss is bad; where only the gradient is, of every process, and of `MAX_PROCESSES` at most.

    Args:
        folder: folder of the dumps, the run directory.
        image_name: returns the name of a training image.
    """

    def __init__(self, folder: Path, image_name: Callable[[int], str]) -> None:
        self.folder = folder
        self.image_name = image_name
        self.report: Report | None = None
        """The update that has ended the run; only in the first process. If None, none has."""
        self._reported: Found | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Engine)
        found = pl_module.guard.found
        if found is None or found is self._reported:
            return
        self._reported = found
        report = self._report(trainer, pl_module, found, MAX_SKIPPED_DUMPS)
        if report is not None:
            where = f", written to {report.dump}" if report.dump is not None else ""
            log.warning("%s and is skipped%s; images: %s", found, where, report.images)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, NonFiniteError):
            assert isinstance(pl_module, Engine)
            self.report = self._report(trainer, pl_module, exception.found, None)

    def _report(self, trainer: Trainer, engine: Engine, found: Found, limit: int | None) -> Report | None:
        """Collects batches and weights in the first process, where it writes them unless there are `limit` dumps already."""
        weights = trainer.strategy.lightning_module_state_dict()
        suspects = self._gathered(trainer, found)
        if not trainer.is_global_zero:
            return None
        names = _worst_first([batch for suspect in suspects for batch in suspect])
        shown = ", ".join(names[:SHOWN_IMAGES]) + (
            f" and {len(names) - SHOWN_IMAGES} more" if len(names) > SHOWN_IMAGES else ""
        )
        if limit is not None and len(list(self.folder.glob("nonfinite_*.pt"))) >= limit:
            return Report(shown, None)
        content: dict[str, Any] = {
            UPDATE_KEY: {
                "format": DUMP_FORMAT,
                "update": found.update,
                "epoch": found.epoch,
                "loss": found.loss,
                "precision": trainer.precision,
                "processes": trainer.world_size,
                "scale": found.scale,
            },
            BATCHES_KEY: [batch for suspect in suspects for batch in suspect],
            METADATA_KEY: engine.metadata,
            "state_dict": {name: tensor for name, tensor in weights.items() if name.startswith(NETWORK_PREFIX)},
        }
        return Report(shown, self._write(content, found.update))

    def _gathered(self, trainer: Trainer, found: Found) -> list[list[Mapping[str, Any]]]:
        """Returns the batches of every process that may be the reason, in the first process."""
        own = (
            self._batches(found, trainer.global_rank)
            if found.own and (found.loss or trainer.global_rank < MAX_PROCESSES)
            else []
        )
        if trainer.world_size == 1:
            return [own]
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.gather_object(own, gathered if trainer.is_global_zero else None)
        return [batches for batches in gathered if batches][:MAX_PROCESSES]

    def _batches(self, found: Found, rank: int) -> list[Mapping[str, Any]]:
        entries: list[Mapping[str, Any]] = []
        for batch, seed in found.batches:
            tensors = [tensor.cpu() for tensor in batch]
            indices = tensors[2].tolist() if len(tensors) > 2 else []
            entries.append({"process": rank, "seed": seed, "tensors": tensors, "names": [self.image_name(i) for i in indices]})
        return entries

    def _write(self, content: dict[str, Any], update: int) -> Path | None:
        file = self.folder / f"nonfinite_{update}.pt"
        try:
            WholeFileIO().save_checkpoint(content, file)
        except OSError as error:
            log.warning("cannot write %s: %s", file, error.strerror or error)
            return None
        return file


def _worst_first(batches: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names of all images, those with pixels that are NaN or infinite first."""
    finite = [
        (bool(image.isfinite().all()), name)
        for batch in batches
        for image, name in zip(batch["tensors"][0], batch["names"], strict=False)
    ]
    return [name for _, name in sorted(finite, key=lambda entry: entry[0])]
