"""What dashboards show besides metrics: what the network sees, its mistakes, its confusion matrix and results per class."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torch import Tensor

from swin_lab.data.decoding import UNREADABLE, Decoder
from swin_lab.data.images import ImageSet
from swin_lab.preprocessing import Preprocessing
from swin_lab.report import draw_heatmap, draw_images
from swin_lab.report.evaluation import Sheet
from swin_lab.run.dashboards import Shown, show
from swin_lab.run.results import columns_of
from swin_lab.training import Columns, Engine, EvaluationResult, ShownImage, Task

log = logging.getLogger("swin_lab")

FOLDER = "figures"
"""Folder of a run directory with the figures that loggers show."""
MAX_SHOWN = 16
"""Number of images of a grid at most."""
MAX_SIDE = 256
"""Pixels of the longer side of a shown image at most."""


class InputGallery(Callback):
    """Shows the first images of the first batch as the network sees them, once.

    Args:
        task: knows what the network sees of a batch.
        preprocessing: tells how colours were normalised.
        run_dir: the run directory.
    """

    def __init__(self, task: Task, preprocessing: Preprocessing, run_dir: Path) -> None:
        self.task = task
        self.preprocessing = preprocessing
        self.file = run_dir / FOLDER / "inputs.png"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step > 0 or batch_idx > 0 or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Engine)
        inputs = self.task.model_inputs(batch, pl_module.batch_seed(batch_idx))[:MAX_SHOWN]
        images = pixels_of(inputs, self.preprocessing)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draw_images(images, [""] * len(images), self.file, title="First batch, as the network sees it")
        show(trainer.loggers, [Shown("inputs", self.file, images, [""] * len(images))], {}, 0)


class EvaluationGallery(Callback):
    """Shows the image grids of the task after every evaluation, in `figures/NAME_UPDATE.png` and `figures/NAME_final.png`.

    Args:
        task: knows which images an evaluation has made.
        preprocessing: tells how colours were normalised.
        run_dir: the run directory.
    """

    def __init__(self, task: Task, preprocessing: Preprocessing, run_dir: Path) -> None:
        self.task = task
        self.preprocessing = preprocessing
        self.folder = run_dir / FOLDER

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Engine)
        if not trainer.is_global_zero:
            return
        fits = trainer.state.fn == TrainerFn.FITTING
        stage, suffix = ("val", f"_{trainer.global_step}") if fits else ("final", "_final")
        figures = []
        for name, sheet in grids_of(self.task, pl_module.result.arrays, self.preprocessing).items():
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / f"{name}{suffix}.png"
            draw_images(sheet.images, sheet.captions, file, title=sheet.title, columns=sheet.columns)
            figures.append(Shown(f"{stage}/{name}", file, sheet.images, sheet.captions))
        show(trainer.loggers, figures, {}, trainer.global_step)


def grids_of(task: Task, arrays: Mapping[str, np.ndarray], preprocessing: Preprocessing) -> dict[str, Sheet]:
    """Returns the image grids of an evaluation, by the name of a file.

    Args:
        task: knows which images an evaluation has made.
        arrays: the arrays among the metrics of the evaluation.
        preprocessing: tells how colours were normalised.
    """
    sheets = {}
    for grid in task.image_grids(arrays):
        rows, columns = grid.images.shape[:2]
        pixels = pixels_of(torch.from_numpy(grid.images).flatten(0, 1), preprocessing)
        sheets[grid.name] = Sheet(grid.name.capitalize(), pixels, [*grid.column_labels] * rows, columns)
    return sheets


def pixels_of(inputs: Tensor, preprocessing: Preprocessing) -> list[np.ndarray]:
    """Returns normalised images (B, channels, H, W) as (H, W, 3) of uint8; a single channel is grey."""
    mean, std = (inputs.new_tensor(values).float()[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    pixels = (inputs.detach().float() * std + mean).clamp(0, 1).mul(255).round().byte()
    images = pixels.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, channels)
    return list(np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images[..., :3])


def final_figures(
    task: Task, result: EvaluationResult, predictions: Columns, images: ImageSet, decode: Decoder, run_dir: Path
) -> tuple[list[Shown], dict[str, Any]]:
    """Draws the figures of the final evaluation into the run directory.

    Args:
        task: knows what is worth a look.
        result: the final evaluation.
        predictions: its predictions.
        images: the validation set.
        decode: decodes its images.
        run_dir: the run directory.

    Returns:
        The figures, and the tables as tag -> column -> values.
    """
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    presentation = task.present(result.arrays)
    figures = []
    for heatmap in presentation.heatmaps:
        file = folder / heatmap.file_name
        draw_heatmap(
            heatmap.counts, heatmap.names, file, row=heatmap.row_label, column=heatmap.column_label, title=heatmap.title
        )
        figures.append(Shown(f"final/{file.stem}", file))
    for name, gallery in task.galleries(predictions, MAX_SHOWN).items():
        pixels, captions = readable(gallery.images, images, decode)
        if pixels:
            file = folder / f"{name}.png"
            draw_images(pixels, captions, file, title=f"{gallery.title}, {result.num_images:,} images")
            figures.append(Shown(f"final/{name}", file, pixels, captions))
    columns = {f"final/{name}": columns_of(value) for name, value in presentation.record.items()}
    return figures, {tag: value for tag, value in columns.items() if isinstance(value, dict)}


def readable(chosen: Sequence[ShownImage], images: ImageSet, decode: Decoder) -> tuple[list[np.ndarray], list[str]]:
    """Returns pixels and captions of those images that can be read."""
    pixels, captions = [], []
    for shown in chosen:
        try:
            image = decode(images.encoded(shown.index))
        except UNREADABLE as error:
            log.warning("%s is not shown: %s", images.name(shown.index), error)
            continue
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        pixels.append(np.asarray(image))
        captions.append(shown.caption)
    return pixels, captions
