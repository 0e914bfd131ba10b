"""An example of a custom model: any torch.nn.Module that takes `num_classes` and returns logits."""

from torch import Tensor, nn


class MyModel(nn.Module):
    """Applies a convolution, an activation and a linear layer.

    Args:
        num_classes: number of logits; the training fills it in from the data.
        img_size: height and width of the images in pixels, a multiple of 4.
        width: channels of the convolution.
    """

    def __init__(self, num_classes: int, img_size: int = 32, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.act = nn.GELU()
        self.head = nn.Linear(width * (img_size // 4) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, num_classes) of images (B, 3, img_size, img_size)."""
        return self.head(self.act(self.patches(images)).flatten(1))
