"""Tasks: network around the model, loss, metrics and presentation; one file per task."""

from swin_lab.tasks.classification import Classification
from swin_lab.tasks.mixing import Mixer, Mixing

__all__ = ["Classification", "Mixer", "Mixing"]
