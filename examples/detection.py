"""torchvision's FPN and Mask R-CNN on a Swin backbone, overfitting ten drawn shapes: python examples/detection.py [STEPS]

For published weights: Backbone(swin_lab.load_model("swin_tiny_patch4_window7_224.pth")).
"""

import sys
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, anchor_utils
from torchvision.ops import FeaturePyramidNetwork, masks_to_boxes

from swin_lab import Backbone, SwinConfig, SwinTransformer

SIDE = 96


class SwinFPN(nn.Module):
    """Returns maps with the same number of channels at every stride, as torchvision's detectors expect them."""

    def __init__(self, backbone: Backbone, out_channels: int = 32) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, out_channels
        self.fpn = FeaturePyramidNetwork([info.channels for info in backbone.feature_info], out_channels)

    def forward(self, image_BCHW: Tensor) -> OrderedDict[str, Tensor]:
        return self.fpn(OrderedDict((str(i), x_BCHW) for i, x_BCHW in enumerate(self.backbone(image_BCHW))))


def shapes(count: int = 10) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Returns images (3, SIDE, SIDE) with a square (class 1) or a disc (class 2), and the target of each."""
    torch.manual_seed(0)
    images, targets, (rows, columns) = [], [], torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    for i, (y, x, r) in enumerate(torch.randint(-12, 12, (count, 3)) + torch.tensor([SIDE // 2, SIDE // 2, 24])):
        dy, dx = (rows - y).abs(), (columns - x).abs()
        mask = (dy**2 + dx**2 <= r**2) if i % 2 else (torch.maximum(dy, dx) <= r)
        images.append(0.1 * torch.rand(3, SIDE, SIDE) + mask * torch.rand(3, 1, 1))
        targets.append({"boxes": masks_to_boxes(mask[None]), "labels": torch.tensor([1 + i % 2]), "masks": mask[None].byte()})
    return images, targets


def overfit(steps: int) -> tuple[MaskRCNN, list[float]]:
    config = SwinConfig(img_size=SIDE, embed_dim=24, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), window_size=6)
    (images, targets), fpn = shapes(), SwinFPN(Backbone(SwinTransformer(config)))
    anchors = anchor_utils.AnchorGenerator(sizes=((8,), (16,), (32,), (64,)), aspect_ratios=((1.0,),) * 4)
    model = MaskRCNN(fpn, 3, SIDE, SIDE, rpn_anchor_generator=anchors, box_batch_size_per_image=8)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for step in range(steps):
        i = 2 * step % len(images)
        losses.append(sum(model.train()(images[i : i + 2], targets[i : i + 2]).values()))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
        print(f"step {step + 1:3} of {steps}  loss {losses[-1].item():.3f}")
    return model.eval(), [loss.item() for loss in losses]


if __name__ == "__main__":
    overfit(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
