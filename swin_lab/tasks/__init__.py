"""Tasks: network around the model, loss, metrics and presentation; one file per task."""

from swin_lab.tasks.classification import Classification
from swin_lab.tasks.distillation import Distillation
from swin_lab.tasks.mixing import Mixer, Mixing
from swin_lab.tasks.multi_label import MultiLabelClassification
from swin_lab.tasks.simmim import SimMIM

__all__ = ["Classification", "Distillation", "Mixer", "Mixing", "MultiLabelClassification", "SimMIM"]
