"""What eval.py draws of the predictions: their calibration, and the images on which they are confident and wrong."""

from pathlib import Path
from typing import Any

from swin_lab.data.decoding import Decoder
from swin_lab.data.images import ImageSet
from swin_lab.report import draw_images
from swin_lab.report.calibration import draw_reliability, reliability
from swin_lab.run.gallery import MAX_SHOWN, readable
from swin_lab.training import Columns, Task


def draw_predictions(task: Task, predictions: Columns, images: ImageSet, decode: Decoder, folder: Path) -> dict[str, Any]:
    """Draws reliability.png and the galleries of the task, such as mistakes.png, into a folder.

    Args:
        task: knows what the predictions mean.
        predictions: of an evaluation; {} if the task has none.
        images: the validation set.
        decode: decodes its images.
        folder: an existing folder.

    Returns:
        The part of results.json: the expected calibration error.
    """
    if not predictions:
        return {}
    for name, gallery in task.galleries(predictions, MAX_SHOWN).items():
        pixels, captions = readable(gallery.images, images, decode)
        if pixels:
            draw_images(pixels, captions, folder / f"{name}.png", title=gallery.title)
    judged = task.confidences(predictions)
    if judged is None:
        return {}
    curve = reliability(*judged)
    draw_reliability(curve, folder / "reliability.png", title=f"{len(judged[0]):,} images")
    return {"calibration": {"ece": curve.ece}}
