"""Swin Transformer, Liu et al. 2021 (arXiv 2103.14030), Fig. 3, and its second version: read it from the top.

References:
1. The paper: sections 3.1 (architecture), 3.2 (shifted windows), 3.3 and Table 7 (variants), A2.1 (start, drop path).
2. Swin Transformer V2, Liu et al. 2022 (arXiv 2111.09883), Fig. 1: norms are swapped here, the rest in attention.py.
3. Their code, for what the papers leave open: github.com/microsoft/Swin-Transformer at f82860b.

Shapes: B batch · H, W map in patches · C channels of a stage
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from swin_lab.errors import UserError, is_whole
from swin_lab.models.attention import CosineWindowAttention, WindowAttention
from swin_lab.models.shape import SwinShape, Windows, plain
from swin_lab.ops.geometry import Size, merge_neighbours, pad_to_multiple


class SwinTransformer(nn.Module):
    """A hierarchical transformer whose attention stays inside shifted windows.

    The defaults are Swin-T. Any image size works at forward time; `img_size` only decides how far windows are shrunk at
    construction, as the published weights have it.

    Args:
        version: 1, or 2 for Swin Transformer V2.
        img_size: height and width in pixels the model is made for, one number or [height, width].
        patch_size: side of a patch in pixels.
        in_channels: channels of an image.
        num_classes: logits; 0 for a model without head.
        embed_dim: C of the first stage; it doubles with every stage.
        depths: blocks per stage.
        num_heads: attention heads per stage; each divides its stage's C.
        window_size: side of a window in tokens; one number, or one entry per stage, each a number or [height, width].
        pretrained_window_sizes: V2 only: the windows that the position bias has learned from, as `window_size` is given; 0
            where it is `window_size` itself. Set it where a model goes on with larger windows (12to16 in the names).
        mlp_ratio: hidden channels of a block's MLP over C.
        qkv_bias: whether queries, keys and values have a bias (V2: queries and values).
        drop_path_rate: chance that the last block's branches are dropped; grows linearly from 0 at the first block.
        activation_checkpointing: recompute each block in the backward pass instead of keeping its activations.
        attention_backend: how windows attend, see `swin_lab.ops.window_attention`.

    Raises:
        UserError: the numbers do not fit each other; the message says which and why.
    """

    def __init__(
        self,
        *,
        version: int = 1,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 4,
        in_channels: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: Windows = 7,
        pretrained_window_sizes: Windows = 0,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.1,
        activation_checkpointing: bool = False,
        attention_backend: str = "auto",
    ) -> None:
        super().__init__()
        numbers: dict[str, Any] = {
            "version": version,
            "img_size": img_size,
            "patch_size": patch_size,
            "in_channels": in_channels,
            "num_classes": num_classes,
            "embed_dim": embed_dim,
            "depths": depths,
            "num_heads": num_heads,
            "window_size": window_size,
            "pretrained_window_sizes": pretrained_window_sizes,
            "mlp_ratio": mlp_ratio,
            "drop_path_rate": drop_path_rate,
        }
        self.shape = SwinShape.checked(**numbers)
        self.config: dict[str, Any] = plain(numbers) | {
            "qkv_bias": qkv_bias,
            "activation_checkpointing": activation_checkpointing,
            "attention_backend": attention_backend,
        }
        """The arguments this model was made with, as plain Python: SwinTransformer(**model.config) makes another one."""
        self.card: dict[str, Any] = {}
        """What travels with the weights: class_names and preprocessing, where they are known."""
        self._frozen: list[nn.Module] = []
        make_merging, make_block = (PatchMerging, SwinBlock) if version == 1 else (PostNormPatchMerging, PostNormSwinBlock)
        rates = iter(torch.linspace(0, drop_path_rate, sum(self.shape.depths), device="cpu").tolist())

        self.embed = PatchEmbedding(in_channels, embed_dim, patch_size)
        self.stages = nn.ModuleList()
        for i, depth in enumerate(self.shape.depths):
            dim = self.shape.channels[i]
            blocks = [
                make_block(self._attention(version, i, j % 2 == 1, qkv_bias, attention_backend), dim, mlp_ratio, next(rates))
                for j in range(depth)
            ]
            merge = make_merging(self.shape.channels[i - 1]) if i > 0 else None
            self.stages.append(SwinStage(merge, blocks, activation_checkpointing))
        self.norm: nn.Module = nn.LayerNorm(self.shape.channels[-1])
        self.head = nn.Linear(self.shape.channels[-1], num_classes) if num_classes > 0 else nn.Identity()
        self.apply(_initialise)

    def _attention(self, version: int, i: int, shifted: bool, qkv_bias: bool, backend: str) -> nn.Module:
        """Of a block in stage i."""
        dim, heads, window = self.shape.channels[i], self.shape.num_heads[i], self.shape.windows[i]
        if version == 1:
            return WindowAttention(dim, heads, window, shifted, qkv_bias, backend)
        return CosineWindowAttention(dim, heads, window, shifted, qkv_bias, backend, self.shape.trained_windows[i])

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Images (B, in_channels, height, width) -> logits (B, num_classes)."""
        return self.head(self.embedding(image_BCHW))

    def embedding(self, image_BCHW: Tensor) -> Tensor:
        """Images -> the normalised last map, averaged over positions: (B, C of the last stage)."""
        return self.norm(self._maps(image_BCHW, len(self.stages))[-1]).mean(dim=(1, 2))

    def features(
        self, image_BCHW: Tensor, stages: Sequence[int] | None = None, norms: Sequence[nn.Module] | None = None
    ) -> list[Tensor]:
        """Images -> one map per stage, taken before the next merging, for detection and segmentation.

        Args:
            image_BCHW: (B, in_channels, height, width), of any size.
            stages: which, counted from 0, in rising order; None for all. Later stages than the last one are not computed.
            norms: one for each of them, applied to (B, H, W, C) maps; None for none. `Backbone` has norms that learn.

        Returns:
            (B, C * 2^i, H / 2^i, W / 2^i) for stage i: strides 4, 8, 16, 32.

        Raises:
            UserError: there is no such stage.
        """
        wanted = checked_stages(stages, len(self.stages))
        maps_BHWC = self._maps(image_BCHW, wanted[-1] + 1)
        chosen = [maps_BHWC[i] for i in wanted]
        if norms is not None:
            chosen = [norm(x_BHWC) for norm, x_BHWC in zip(norms, chosen, strict=True)]
        return [x_BHWC.permute(0, 3, 1, 2).contiguous() for x_BHWC in chosen]

    @property
    def feature_info(self) -> list["FeatureInfo"]:
        """Of every stage, what `features` gives for it."""
        patch = self.embed.patch_size[0]
        return [FeatureInfo(i, channels, patch * 2**i) for i, channels in enumerate(self.shape.channels)]

    def freeze_stages(self, count: int) -> None:
        """Stops patch embedding and the first `count` stages from learning: no gradients, no drop path. 0 undoes it.

        Raises:
            UserError: there are not so many stages.
        """
        if not is_whole(count) or not 0 <= count <= len(self.stages):
            raise UserError(f"{count} stages cannot be frozen; the model has {len(self.stages)}")
        for part in self._frozen:
            part.requires_grad_(True)
        self._frozen = [self.embed, *self.stages[:count]] if count else []
        for part in self._frozen:
            part.requires_grad_(False)
        self.train(self.training)

    def layer_of(self, name: str) -> int:
        """The number of the layer that a parameter of this name belongs to, for learning rates per layer.

        0 is the patch embedding, then every block counts one; a merging belongs to the block before it, norm and head to the
        layer after the last block (get_swin_layer of the official optimizer.py).
        """
        depths, parts = self.shape.depths, name.split(".")
        if parts[0] == "embed":
            return 0
        if parts[0] != "stages":
            return sum(depths) + 1
        before = sum(depths[: int(parts[1])])
        return before if parts[2] == "merge" else before + int(parts[3]) + 1

    def train(self, mode: bool = True) -> "SwinTransformer":
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def _maps(self, image_BCHW: Tensor, count: int) -> list[Tensor]:
        """Of the first `count` stages."""
        x_BHWC, maps = self.embed(image_BCHW), []
        for stage in self.stages[:count]:
            x_BHWC = stage(x_BHWC)
            maps.append(x_BHWC)
        return maps


@dataclass(frozen=True)
class FeatureInfo:
    """What `features` gives for a stage."""

    stage: int
    channels: int
    stride: int
    """Pixels of the image per position of the map."""


def checked_stages(stages: Sequence[int] | None, count: int) -> list[int]:
    """The stages asked for, all if None; raises UserError unless they exist and rise."""
    if stages is None:
        return list(range(count))
    wanted = list(stages)
    if not wanted or wanted != sorted(set(wanted)) or not all(is_whole(i) and 0 <= i < count for i in wanted):
        raise UserError(f"stages={wanted}: give some of {list(range(count))}, in rising order")
    return wanted


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


class PostNormPatchMerging(PatchMerging):
    """The merging of V2: the linear layer comes before the norm."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.norm(self.reduction(merge_neighbours(x_BHWC)))


class SwinBlock(nn.Module):
    """Equation 3 of the paper, one line each:

    x ─┬─ norm1 ─ attention ─ drop path ─(+)─┬─ norm2 ─ MLP ─ drop path ─(+)─
       └─────────────────────────────────────┘└──────────────────────────┘
    """

    def __init__(self, attention: nn.Module, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self.drop_path(self.attn(self.norm1(x_BHWC)))
        return x_BHWC + self.drop_path(self.mlp(self.norm2(x_BHWC)))


class PostNormSwinBlock(SwinBlock):
    """The block of V2 (ref. 2, section 3.2): each branch ends in its norm; as that starts at zero, a new block changes nothing.

    x ─┬─ attention ─ norm1 ─ drop path ─(+)─┬─ MLP ─ norm2 ─ drop path ─(+)─
       └─────────────────────────────────────┘└──────────────────────────┘
    """

    def __init__(self, attention: nn.Module, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__(attention, dim, mlp_ratio, drop_path)
        nn.init.zeros_(self.norm1.weight)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self.drop_path(self.norm1(self.attn(x_BHWC)))
        return x_BHWC + self.drop_path(self.norm2(self.mlp(x_BHWC)))


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
