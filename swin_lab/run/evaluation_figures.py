"""The figures of an evaluation by eval.py: images of the task, calibration, and confident mistakes."""

from pathlib import Path
from typing import Any

from swin_lab.data import ImageData
from swin_lab.preprocessing import Preprocessing
from swin_lab.report import draw_images
from swin_lab.report.calibration import draw_reliability, reliability
from swin_lab.run.gallery import MAX_SHOWN, draw_grids, readable
from swin_lab.training import Columns, Engine


def draw_evaluation(
    engine: Engine, predictions: Columns, data_module: ImageData, preprocessing: Preprocessing, folder: Path
) -> dict[str, Any]:
    """Draws the image grids of the task, its galleries, such as mistakes.png, and reliability.png into a folder.

    Args:
        engine: has evaluated.
        predictions: of the evaluation; {} if the task has none.
        data_module: has the validation set.
        preprocessing: tells how colours were normalised.
        folder: an existing folder.

    Returns:
        The part of results.json: the expected calibration error.
    """
    task = engine.task
    draw_grids(task, engine.result.arrays, preprocessing, folder)
    if not predictions:
        return {}
    for name, gallery in task.galleries(predictions, MAX_SHOWN).items():
        pixels, captions = readable(gallery.images, data_module.source.val, data_module.decode)
        if pixels:
            draw_images(pixels, captions, folder / f"{name}.png", title=gallery.title)
    judged = task.confidences(predictions)
    if judged is None:
        return {}
    curve = reliability(*judged)
    draw_reliability(curve, folder / "reliability.png", title=f"{len(judged[0]):,} images")
    return {"calibration": {"ece": curve.ece}}
