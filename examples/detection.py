"""Swin as the backbone of a detector: torchvision's feature pyramid and Mask R-CNN learn ten pictures by heart.

    python examples/detection.py [--steps 100]

For real pictures start from published weights: Backbone(swin_lab.load_model("swin_tiny_patch4_window7_224.pth")).
"""

import argparse

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from swin_lab import Backbone, SwinTransformer

Pictures = tuple[list[Tensor], list[dict[str, Tensor]]]


class Pyramid(nn.Module):
    """What torchvision's detectors take as a backbone: named maps, finest first, all with `out_channels`."""

    def __init__(self, backbone: Backbone, out_channels: int) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, out_channels
        channels = [info.channels for info in backbone.feature_info]
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks=LastLevelMaxPool())

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(i): x_BCHW for i, x_BCHW in enumerate(self.backbone(image_BCHW))})


def build(side: int = 96) -> MaskRCNN:
    network = SwinTransformer(embed_dim=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), drop_path_rate=0)
    return MaskRCNN(Pyramid(Backbone(network), out_channels=64), num_classes=3, min_size=side, max_size=side)


def shapes(count: int, seed: int, side: int = 96) -> Pictures:
    """Pictures with a rectangle (label 1) on the left and a disc (label 2) on the right, and what is to be found in them."""
    generator = torch.Generator().manual_seed(seed)
    images, targets = [], []
    y_HW, x_HW = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    return images, targets
