"""Swin Transformer, Liu et al. 2021 (arXiv 2103.14030), Fig. 3: read it from the top.

References:
1. The paper: sections 3.1 (architecture), 3.2 (shifted windows), 3.3 and Table 7 (variants), A2.1 (start, drop path).
2. Its code, for what the paper leaves open: github.com/microsoft/Swin-Transformer at f82860b.

Shapes: B batch · H, W map in patches · C channels of a stage
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from swin_lab.models.attention import WindowAttention
from swin_lab.models.shape import SwinShape, Windows
from swin_lab.ops.geometry import Size, merge_neighbours, pad_to_multiple


class SwinTransformer(nn.Module):
    """A hierarchical transformer whose attention stays inside shifted windows.

    The defaults are Swin-T. Any image size works at forward time; `img_size` only decides how far windows are shrunk at
    construction, as the published weights have it.

    Args:
        img_size: height and width in pixels the model is made for, one number or [height, width].
        patch_size: side of a patch in pixels.
        in_channels: channels of an image.
        num_classes: logits; 0 for a model without head.
        embed_dim: C of the first stage; it doubles with every stage.
        depths: blocks per stage.
        num_heads: attention heads per stage; each divides its stage's C.
        window_size: side of a window in tokens; one number, or one entry per stage, each a number or [height, width].
        mlp_ratio: hidden channels of a block's MLP over C.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: chance that the last block's branches are dropped; grows linearly from 0 at the first block.
        activation_checkpointing: recompute each block in the backward pass instead of keeping its activations.
        attention_backend: how windows attend, see `swin_lab.ops.window_attention`.

    Raises:
        UserError: the numbers do not fit each other; the message says which and why.
    """

    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 4,
        in_channels: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: Windows = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.1,
        activation_checkpointing: bool = False,
        attention_backend: str = "auto",
    ) -> None:
        super().__init__()
        self.shape = SwinShape.checked(
            img_size,
            patch_size,
            in_channels,
            num_classes,
            embed_dim,
            depths,
            num_heads,
            window_size,
            mlp_ratio,
            drop_path_rate,
        )
        rates = iter(torch.linspace(0, drop_path_rate, sum(self.shape.depths), device="cpu").tolist())

        self.embed = PatchEmbedding(in_channels, embed_dim, patch_size)
        self.stages = nn.ModuleList()
        for i, depth in enumerate(self.shape.depths):
            blocks = [
                SwinBlock(
                    dim=self.shape.channels[i],
                    num_heads=self.shape.num_heads[i],
                    window=self.shape.windows[i],
                    shifted=j % 2 == 1,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    drop_path=next(rates),
                    backend=attention_backend,
                )
                for j in range(depth)
            ]
            merge = PatchMerging(self.shape.channels[i - 1]) if i > 0 else None
            self.stages.append(SwinStage(merge, blocks, activation_checkpointing))
        self.norm = nn.LayerNorm(self.shape.channels[-1])
        self.head = nn.Linear(self.shape.channels[-1], num_classes) if num_classes > 0 else nn.Identity()
        self.apply(_initialise)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Images (B, in_channels, height, width) -> logits (B, num_classes)."""
        return self.head(self.embedding(image_BCHW))

    def embedding(self, image_BCHW: Tensor) -> Tensor:
        """Images -> the normalised last map, averaged over positions: (B, C of the last stage)."""
        return self.norm(self._maps(image_BCHW)[-1]).mean(dim=(1, 2))

    def features(self, image_BCHW: Tensor) -> list[Tensor]:
        """Images -> one map per stage, taken before the next merging: (B, C * 2^i, H / 2^i, W / 2^i), strides 4, 8, 16, 32."""
        return [x_BHWC.permute(0, 3, 1, 2).contiguous() for x_BHWC in self._maps(image_BCHW)]

    def _maps(self, image_BCHW: Tensor) -> list[Tensor]:
        x_BHWC, maps = self.embed(image_BCHW), []
        for stage in self.stages:
            x_BHWC = stage(x_BHWC)
            maps.append(x_BHWC)
        return maps


class PatchEmbedding(nn.Module):
    """Patch partition and linear embedding: every patch's pixels through one linear layer, then a norm."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size: Size = (patch_size, patch_size)
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """(B, channels, height, width) in pixels -> (B, H, W, C) in patches; the last row and column may hold padding."""
        whole_BHWC = pad_to_multiple(image_BCHW.permute(0, 2, 3, 1), self.patch_size)
        return self.norm(self.proj(whole_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class SwinStage(nn.Module):
    """Patch merging (in all stages but the first), then blocks of regular and shifted windows in turn."""

    def __init__(self, merge: "PatchMerging | None", blocks: "list[SwinBlock]", activation_checkpointing: bool) -> None:
        super().__init__()
        self.merge = merge if merge is not None else nn.Identity()
        self.blocks = nn.ModuleList(blocks)
        self.activation_checkpointing = activation_checkpointing

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = self.merge(x_BHWC)
        for block in self.blocks:
            if self.activation_checkpointing and self.training:
                x_BHWC = checkpoint(block, x_BHWC, use_reentrant=False)
            else:
                x_BHWC = block(x_BHWC)
        return x_BHWC


class PatchMerging(nn.Module):
    """Halves the map and doubles the channels: 2x2 neighbours side by side (4C), norm, one linear layer (2C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C)."""
        return self.reduction(self.norm(merge_neighbours(x_BHWC)))


class SwinBlock(nn.Module):
    """Equation 3 of the paper, one line each:

    x ─┬─ norm1 ─ attention ─ drop path ─(+)─┬─ norm2 ─ MLP ─ drop path ─(+)─
       └─────────────────────────────────────┘└──────────────────────────┘
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        window: Size,
        shifted: bool,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
        backend: str,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window, shifted, qkv_bias, backend)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self.drop_path(self.attn(self.norm1(x_BHWC)))
        return x_BHWC + self.drop_path(self.mlp(self.norm2(x_BHWC)))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, on each token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_BHWC)))


def _initialise(module: nn.Module) -> None:
    """Linear layers: truncated normal of deviation 0.02, biases 0. Norms and the patch convolution keep torch's start."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
