"""The LightningModule, parameter groups, schedules and callbacks of training."""

from swin_lab.training.callbacks import EpochLines
from swin_lab.training.classifier import Classifier
from swin_lab.training.freezing import Freezing
from swin_lab.training.optim import AdamW
from swin_lab.training.schedule import Schedule, WarmupConstant, WarmupCosine

__all__ = ["AdamW", "Classifier", "EpochLines", "Freezing", "Schedule", "WarmupConstant", "WarmupCosine"]
