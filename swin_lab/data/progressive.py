"""Progressive resizing, or progressive resolution: an epoch trains at a lower resolution than the network is evaluated at."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from swin_lab.errors import UserError


@dataclass(frozen=True)
class ProgressiveSize:
    """Resizes training batches on the device to the resolution of the epoch.

    Images are loaded and augmented at the full size, so that it works with every source, augmentation and cache. A Swin
    Transformer takes images of any size: windows and position biases stay, and the masks of shifted windows follow the size.

    Args:
        sizes: pairs of an epoch, counted from 0, and the shorter side in pixels from this epoch on.
        img_size: height and width of the augmented images in pixels, which are those of the epochs before the first one.

    Raises:
        UserError: a size is larger than the images, or the epochs do not increase.
    """

    sizes: Sequence[tuple[int, int]]
    img_size: tuple[int, int]

    def __post_init__(self) -> None:
        epochs = [epoch for epoch, _ in self.sizes]
        if epochs != sorted(set(epochs)):
            raise UserError(f"data.size_by_epoch has the epochs {epochs}, which must increase")
        for epoch, size in self.sizes:
            if size > min(self.img_size):
                raise UserError(
                    f"data.size_by_epoch: {size} pixels from epoch {epoch} on are more than the {min(self.img_size)} of the "
                    "input\nChoose smaller ones; epochs before the first one have the full size"
                )

    def __str__(self) -> str:
        """Returns the sizes as a line of text; epochs are counted from 1 in it, as in the lines of a training."""
        starts = sorted({0, *(start for start, _ in self.sizes)})
        shown = ["{}x{} pixels".format(*self.at(start)) for start in starts]
        parts = [f"{size} until epoch {end}" for size, end in zip(shown, starts[1:], strict=False)]
        return ", ".join([*parts, f"then {shown[-1]}" if parts else shown[-1]])

    def at(self, epoch: int) -> tuple[int, int]:
        """Returns height and width in pixels of an epoch."""
        begun = [size for start, size in self.sizes if start <= epoch]
        scale = begun[-1] / min(self.img_size) if begun else 1.0
        height, width = self.img_size
        return round(height * scale), round(width * scale)

    def resize(self, images_BCHW: Tensor, epoch: int) -> Tensor:
        """Returns a batch (B, channels, height, width) at the size of an epoch, by antialiased bilinear resizing."""
        size = self.at(epoch)
        if size == tuple(images_BCHW.shape[2:]):
            return images_BCHW
        return F.interpolate(images_BCHW, size, mode="bilinear", antialias=True)
