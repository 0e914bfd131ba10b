"""Weights of every ecosystem, in and out."""

from swin_lab.weights.checkpoint import Checkpoint, open_checkpoint
from swin_lab.weights.export import export_model
from swin_lab.weights.head import plan_head
from swin_lab.weights.load import Report, load, load_model, transfer, with_trained_windows
from swin_lab.weights.save import save_weights

__all__ = [
    "Checkpoint",
    "Report",
    "export_model",
    "load",
    "load_model",
    "open_checkpoint",
    "plan_head",
    "save_weights",
    "transfer",
    "with_trained_windows",
]
