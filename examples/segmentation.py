"""A U-shaped segmenter on a Swin backbone, overfitting ten drawn shapes: python examples/segmentation.py [STEPS]

For published weights: Backbone(swin_lab.load_model("swin_tiny_patch4_window7_224.pth")).
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_lab import Backbone, SwinConfig, SwinTransformer


class Segmenter(nn.Module):
    """Segments images: a decoder of convolutions concatenates each map with the encoder's (Swin's) map of the same stride."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        channels = [info.channels for info in backbone.feature_info]
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(below + own, own, 3, padding=1), nn.GroupNorm(8, own), nn.GELU())
            for own, below in zip(channels[-2::-1], channels[:0:-1], strict=True)
        )
        self.classify = nn.Conv2d(channels[0], num_classes, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Maps (B, 3, height, width) to logits (B, num_classes, height, width), for any height and width."""
        *skips, x_BCHW = self.backbone(image_BCHW)
        for up, skip_BCHW in zip(self.up, reversed(skips), strict=True):
            x_BCHW = up(torch.cat([F.interpolate(x_BCHW, size=skip_BCHW.shape[2:]), skip_BCHW], dim=1))
        return F.interpolate(self.classify(x_BCHW), size=image_BCHW.shape[2:], mode="bilinear")


def shapes(height: int = 64, width: int = 64, count: int = 10) -> tuple[Tensor, Tensor]:
    """Returns noisy images (count, 3, height, width) with a disc each, and classes (count, height, width): 1 on the disc."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    y, x, r = (torch.randint(low, high, (count, 1, 1)) for low, high in ((16, 48), (16, 48), (8, 16)))
    classes = ((rows - y) ** 2 + (columns - x) ** 2 <= r**2).long()
    return torch.randn(count, 3, height, width) + 1.5 * classes[:, None], classes


def overfit(steps: int) -> tuple[Segmenter, list[float]]:
    images, classes = shapes()
    config = SwinConfig(img_size=64, embed_dim=24, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), window_size=4)
    model = Segmenter(Backbone(SwinTransformer(config)), num_classes=2)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for step in range(steps):
        losses.append(F.cross_entropy(model(images), classes))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
        print(f"step {step + 1:3} of {steps}  loss {losses[-1]:.3f}")
    return model.eval(), [loss.item() for loss in losses]


if __name__ == "__main__":
    overfit(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
