"""The LightningModule, parameter groups, schedules, mixing and callbacks of training."""

from swin_lab.training.callbacks import DataTimeMonitor, EpochSummary
from swin_lab.training.classifier import Classifier
from swin_lab.training.ema import Ema
from swin_lab.training.freezing import Freezing
from swin_lab.training.mixing import Mixing
from swin_lab.training.optim import AdamW
from swin_lab.training.schedule import Constant, Cosine, Linear, MultiStep, Schedule, Span, Step

__all__ = [
    "AdamW",
    "Classifier",
    "Constant",
    "Cosine",
    "DataTimeMonitor",
    "Ema",
    "EpochSummary",
    "Freezing",
    "Linear",
    "Mixing",
    "MultiStep",
    "Schedule",
    "Span",
    "Step",
]
