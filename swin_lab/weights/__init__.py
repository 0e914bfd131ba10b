"""Weights of every library: reading, transfer to other sizes and classes, writing and export."""

from swin_lab.weights.checkpoint import Checkpoint, open_checkpoint, read_source
from swin_lab.weights.export import export_model
from swin_lab.weights.files import Contents
from swin_lab.weights.head import plan_head
from swin_lab.weights.load import load, load_model
from swin_lab.weights.save import save_weights
from swin_lab.weights.transfer import LoadReport, transfer, with_pretrained_windows

__all__ = [
    "Checkpoint",
    "Contents",
    "LoadReport",
    "export_model",
    "load",
    "load_model",
    "open_checkpoint",
    "plan_head",
    "read_source",
    "save_weights",
    "transfer",
    "with_pretrained_windows",
]
