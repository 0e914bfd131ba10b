"""The network of SimMIM: a Swin Transformer that sees masked tokens, and a linear decoder of pixels.

References:
1. SimMIM, Xie et al. 2022 (arXiv 2111.09886), section 3.
2. The authors' code: models/simmim.py of github.com/microsoft/Swin-Transformer at f82860b.

Shapes: B batch · H, W map in tokens · h, w cells of a mask · C channels of a stage
"""

import torch
from torch import Tensor, nn

from swin_lab.models.config import SwinConfig
from swin_lab.models.swin import SwinTransformer


class MaskedImageModel(nn.Module):
    """Reconstructs images of which a part is masked.

    Args:
        encoder: any Swin Transformer; its head is not used.
    """

    def __init__(self, encoder: SwinTransformer) -> None:
        super().__init__()
        channels, stride = encoder.config.channels, self.stride_of(encoder.config)
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.zeros(1, 1, channels[0]))
        """Replaces every masked token; it has the official code's shape."""
        self.decoder = nn.Conv2d(channels[-1], stride**2 * encoder.in_channels, kernel_size=1)
        self.to_pixels = nn.PixelShuffle(stride)
        nn.init.normal_(self.mask_token, std=0.02)  # See `_initialise` of the network.

    @staticmethod
    def stride_of(config: SwinConfig) -> int:
        """Returns the pixels of an image per token of the last stage, along each axis."""
        return config.patch_size * 2 ** (len(config.depths) - 1)

    @property
    def config(self) -> SwinConfig:
        """Returns the hyper-parameters of the encoder."""
        return self.encoder.config

    @property
    def img_size(self) -> tuple[int, int]:
        """Returns height and width in pixels of the encoder's `img_size`."""
        return self.encoder.img_size

    @property
    def in_channels(self) -> int:
        """Returns the channels of an image."""
        return self.encoder.in_channels

    def forward(self, image_BCHW: Tensor, mask_Bhw: Tensor) -> Tensor:
        """Reconstructs images (B, channels, height, width) from what is not masked.

        Args:
            image_BCHW: images whose sides the stride of the last stage divides.
            mask_Bhw: (B, h, w) of bool, true for masked cells; h and w divide the sides of the first map.

        Returns:
            (B, channels, height, width): all pixels, those that are not masked included.
        """
        tokens_BHWC = self.encoder.tokens(image_BCHW)
        mask_BHW1 = enlarged(mask_Bhw, (tokens_BHWC.shape[1], tokens_BHWC.shape[2]))[..., None]
        map_BHWC = self.encoder.encode(torch.where(mask_BHW1, self.mask_token.to(tokens_BHWC), tokens_BHWC))
        return self.to_pixels(self.decoder(map_BHWC.permute(0, 3, 1, 2)))

    def layer_of(self, name: str) -> int:
        """Returns the number of the layer of a parameter, see `SwinTransformer.layer_of`: the mask token belongs to layer 0."""
        if name == "mask_token":
            return 0
        return self.encoder.layer_of(name.removeprefix("encoder."))


def enlarged(mask_Bhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeats the cells of a mask for a map or an image of a multiple of its size, (B, *size)."""
    height, width = (side // cells for side, cells in zip(size, mask_Bhw.shape[1:], strict=True))
    return mask_Bhw.repeat_interleave(height, dim=1).repeat_interleave(width, dim=2)
