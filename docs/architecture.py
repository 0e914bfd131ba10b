"""Draws docs/architecture.png, the figure of README, again.

    python docs/architecture.py

`swin-lab explain MODEL -o FILE` draws the same figure of any network.
"""

from pathlib import Path

import torch

import swin_lab
from swin_lab.report import draw_architecture
from swin_lab.run.architecture import architecture_of

MODEL = "swin_tiny_patch4_window7_224"

if __name__ == "__main__":
    with torch.device("meta"):
        network = swin_lab.create_model(MODEL, attention_backend="reference")
    draw_architecture(architecture_of(network, MODEL), Path(__file__).with_suffix(".png"))
