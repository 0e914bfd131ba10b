"""The LightningModule, parameter groups, schedules and callbacks of training."""

from swin_lab.training.callbacks import EpochLines
from swin_lab.training.classifier import CARD, Classifier
from swin_lab.training.optim import AdamW
from swin_lab.training.schedule import Schedule, WarmupConstant, WarmupCosine

__all__ = ["CARD", "AdamW", "Classifier", "EpochLines", "Schedule", "WarmupConstant", "WarmupCosine"]
