"""The callback that shows images of every evaluation of a training, such as reconstructed ones: as PNG and in TensorBoard."""

from pathlib import Path

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from swin_lab.preprocessing import Preprocessing
from swin_lab.run.results import draw_image_grid
from swin_lab.training import Engine

FOLDER = "figures"
"""Folder of a run directory with figures."""


class EvaluationImages(Callback):
    """Draws the image grids of the task after every evaluation: `figures/NAME_UPDATE.png`, the best weights' `NAME_final.png`.

    Args:
        run_dir: the run directory.
        preprocessing: tells how images were normalised.
    """

    def __init__(self, run_dir: Path, preprocessing: Preprocessing) -> None:
        self.folder = run_dir / FOLDER
        self.preprocessing = preprocessing

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Engine)
        if not trainer.is_global_zero:
            return
        moment = str(trainer.global_step) if trainer.state.fn == TrainerFn.FITTING else "final"
        for grid in pl_module.task.image_grids(pl_module.result.arrays):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / f"{grid.name}_{moment}.png"
            draw_image_grid(grid, self.preprocessing, file)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    tag = f"{'final' if moment == 'final' else 'val'}/{grid.name}"
                    pixels = np.asarray(Image.open(file).convert("RGB"))
                    logger.experiment.add_image(tag, pixels, trainer.global_step, dataformats="HWC")
