"""Swin Transformer, Liu et al. 2021 (arXiv 2103.14030), Fig. 3, and Swin Transformer V2, from top to bottom.

References:
1. The paper: sections 3.1 (architecture), 3.2 (shifted windows), 3.3 and Table 7 (variants), A2.1 (initialisation, drop path).
2. Swin Transformer V2, Liu et al. 2022 (arXiv 2111.09883), Fig. 1: the order of the norms is here, the rest in attention.py.
3. The authors' code, for what the papers leave open: github.com/microsoft/Swin-Transformer at f82860b.

Shapes: B batch · H, W map in patches · C channels of a stage
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swin_lab.errors import UserError
from swin_lab.models.attention import CosineWindowAttention, WindowAttention
from swin_lab.models.config import SwinConfig
from swin_lab.models.drop_path import DropPath, DropPathMode
from swin_lab.models.window_mlp import WindowMlp
from swin_lab.ops.geometry import Size, merge_neighbours, pad_to_multiple
from swin_lab.preprocessing import Preprocessing
from swin_lab.validation import NonNegativeInt, check_value


class SwinTransformer(nn.Module):
    """Computes logits or feature maps by a hierarchical vision transformer with attention inside shifted windows.

    Any image size works at forward time; `config.img_size` only limits the windows, as in the published weights.

    Args:
        config: hyper-parameters, see `SwinConfig`.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        self.class_names: tuple[str, ...] | None = None
        """Names of the classes in the order of the head's rows, if the weights contain them."""
        self.preprocessing: Preprocessing | None = None
        self.thresholds: tuple[float, ...] | None = None  # of each class, if images have several labels
        """Preprocessing of images for these weights, if the weights contain it."""
        self._frozen: list[nn.Module] = []
        make_merging, make_block = (
            (PatchMerging, SwinBlock) if config.version == 1 else (PostNormPatchMerging, PostNormSwinBlock)
        )
        rates = iter(torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist())

        self.embed = PatchEmbedding(config.in_channels, config.embed_dim, config.patch_size)
        self.stages = nn.ModuleList()
        for i, depth in enumerate(config.depths):
            dim = config.channels[i]
            blocks = [
                make_block(_token_mixer(config, i, j % 2 == 1), dim, config.mlp_ratio, next(rates), config.drop_path_mode)
                for j in range(depth)
            ]
            merge = make_merging(config.channels[i - 1]) if i > 0 else None
            self.stages.append(SwinStage(merge, blocks, config.activation_checkpointing))
        self.norm: nn.Module = nn.LayerNorm(config.channels[-1])
        self.head = nn.Linear(config.channels[-1], config.num_classes) if config.num_classes > 0 else nn.Identity()
        self.apply(_initialise)

    @property
    def img_size(self) -> Size:
        """Returns height and width in pixels of `img_size`."""
        return self.config.image_size

    @property
    def in_channels(self) -> int:
        """Returns the channels of an image."""
        return self.config.in_channels

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Maps images (B, in_channels, height, width) to logits (B, num_classes).

        Raises:
            UserError: the images have another rank or number of channels, no pixels, or a dtype that is not floating point.
        """
        return self.head(self.embedding(image_BCHW))

    def embedding(self, image_BCHW: Tensor) -> Tensor:
        """Maps images to the normalised last feature map, averaged over positions: (B, C of the last stage)."""
        return self.encode(self.tokens(image_BCHW)).mean(dim=(1, 2))

    def tokens(self, image_BCHW: Tensor) -> Tensor:
        """Maps images (B, in_channels, height, width) to the tokens of the first stage, (B, H, W, C).

        Raises:
            UserError: as in `forward`.
        """
        check_images(image_BCHW, self.in_channels, self.embed.proj.weight.dtype)
        _compile_for_size(image_BCHW, (2, 3))
        return self.embed(image_BCHW)

    def encode(self, x_BHWC: Tensor) -> Tensor:
        """Maps tokens of the first stage, which may have been changed, to the normalised last feature map, (B, H', W', C')."""
        for stage in self.stages:
            x_BHWC = stage(x_BHWC)
        return self.norm(x_BHWC)

    def features(
        self, image_BCHW: Tensor, stages: Sequence[int] | None = None, norms: Sequence[nn.Module] | None = None
    ) -> list[Tensor]:
        """Maps images to one feature map per stage, taken before the next merging, for detection and segmentation.

        Args:
            image_BCHW: (B, in_channels, height, width), of any size.
            stages: stages counted from 0, in increasing order. If None, all. Stages after the last one are not computed.
            norms: one norm per stage, applied to (B, H, W, C) maps. If None, none is applied. `Backbone` has trainable norms.

        Returns:
            (B, C * 2^i, H / 2^i, W / 2^i) for stage i: strides 4, 8, 16, 32.

        Raises:
            UserError: the stage does not exist.
        """
        wanted = checked_stages(stages, len(self.stages))
        maps_BHWC = self._maps(image_BCHW, wanted[-1] + 1)
        chosen = [maps_BHWC[i] for i in wanted]
        if norms is not None:
            chosen = [norm(x_BHWC) for norm, x_BHWC in zip(norms, chosen, strict=True)]
        return [x_BHWC.permute(0, 3, 1, 2).contiguous() for x_BHWC in chosen]

    @property
    def feature_info(self) -> list["FeatureInfo"]:
        """Returns channels and stride of every map that `features` returns."""
        patch = self.embed.patch_size[0]
        return [FeatureInfo(i, channels, patch * 2**i) for i, channels in enumerate(self.config.channels)]

    def freeze_stages(self, count: int) -> None:
        """Freezes the patch embedding and the first `count` stages: no gradients, no drop path. 0 unfreezes them.

        Raises:
            UserError: the model does not have that many stages.
        """
        check_value("count", count, NonNegativeInt)
        if count > len(self.stages):
            raise UserError(f"{count} stages cannot be frozen; the model has {len(self.stages)}")
        for part in self._frozen:
            part.requires_grad_(True)
        self._frozen = [self.embed, *self.stages[:count]] if count else []
        for part in self._frozen:
            part.requires_grad_(False)
        self.train(self.training)

    def layer_of(self, name: str) -> int:
        """Returns the number of the layer that a parameter belongs to, for layer-wise learning rate decay.

        The patch embedding is layer 0, then every block is one layer; a merging belongs to the block before it, norm and head
        to the layer after the last block (get_swin_layer of the official optimizer.py).
        """
        depths, parts = self.config.depths, name.split(".")
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
        """Returns the maps of the first `count` stages, (B, H, W, C) each."""
        x_BHWC, maps = self.tokens(image_BCHW), []
        for stage in self.stages[:count]:
            x_BHWC = stage(x_BHWC)
            maps.append(x_BHWC)
        return maps


def _compile_for_size(x: Tensor, axes: Sequence[int]) -> None:
    """Makes a compiler treat the size of a map as a constant; batch sizes may be symbolic.

    Windows follow from the size of the map. Symbolic sizes would take minutes to compile, so that a new size is compiled as a
    constant, as with dynamic=False.
    """
    if torch.compiler.is_dynamo_compiling():
        for axis in axes:
            torch._dynamo.mark_static(x, axis)


@dataclass(frozen=True)
class FeatureInfo:
    """Describes a map that `features` returns."""

    stage: int
    channels: int
    stride: int
    """Pixels of the image per position of the map along each axis."""


def check_images(image_BCHW: Tensor, channels: int, weights: torch.dtype) -> None:
    """Raises UserError unless these are images (B, channels, height, width) for weights of a dtype."""
    if not isinstance(image_BCHW, Tensor):
        raise UserError(f"images are a {type(image_BCHW).__name__}; they must be a tensor {_expected(channels, weights)}")
    shape = tuple(image_BCHW.shape)
    if len(shape) != 4 or shape[1] != channels or shape[2] == 0 or shape[3] == 0:
        advice = "; add the batch axis with image[None]" if len(shape) == 3 and shape[0] == channels else ""
        raise UserError(f"images have the shape {shape}; they must be {_expected(channels, weights)}{advice}")
    if image_BCHW.dtype != weights and not _is_cast(image_BCHW):
        raise UserError(f"images are of dtype {_name(image_BCHW.dtype)}; they must be {_expected(channels, weights)}")


def _is_cast(image_BCHW: Tensor) -> bool:
    """Returns whether mixed precision casts these images: any of floating point but float64, which numpy's are by default."""
    return (
        image_BCHW.is_floating_point()
        and image_BCHW.dtype != torch.float64
        and not image_BCHW.is_meta
        and torch.is_autocast_enabled(image_BCHW.device.type)
    )


def _expected(channels: int, weights: torch.dtype) -> str:
    return f"(batch, {channels}, height, width) of {_name(weights)}, normalised with the mean and std of the weights"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def checked_stages(stages: Sequence[int] | None, count: int) -> list[int]:
    """Returns the chosen stages, all if None; raises UserError unless they exist and are in increasing order."""
    if stages is None:
        return list(range(count))
    given = list(stages) if isinstance(stages, Sequence) and not isinstance(stages, str) else stages
    chosen: list[int] = check_value("stages", given, list[NonNegativeInt])
    if not chosen or chosen != sorted(set(chosen)) or chosen[-1] >= count:
        raise UserError(f"stages={chosen} must be some of {list(range(count))}, in increasing order")
    return chosen


def _token_mixer(config: SwinConfig, stage: int, shifted: bool) -> nn.Module:
    """Returns the attention of a block, or the layer that Swin-MLP has instead."""
    dim, heads, window = config.channels[stage], config.num_heads[stage], config.windows[stage]
    if config.token_mixer == "mlp":
        return WindowMlp(dim, heads, window, shifted)
    if config.version == 1:
        return WindowAttention(dim, heads, window, shifted, config.qkv_bias, config.attention_backend)
    return CosineWindowAttention(
        dim, heads, window, shifted, config.qkv_bias, config.attention_backend, config.pretrained_windows[stage]
    )


class PatchEmbedding(nn.Module):
    """Maps the pixels of every patch through one linear layer, then a norm: patch partition and linear embedding."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size: Size = (patch_size, patch_size)
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Maps (B, channels, height, width) in pixels to (B, H, W, C) in patches; the last row and column may be padded."""
        # With the channels last in memory, the convolution writes its output so, and nothing is copied for the norm.
        padded_BHWC = pad_to_multiple(image_BCHW.permute(0, 2, 3, 1), self.patch_size).contiguous()
        return self.norm(self.proj(padded_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class SwinStage(nn.Module):
    """Applies patch merging (in all stages but the first), then blocks of regular and shifted windows in turn."""

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
    """Halves the map and doubles the channels: 2x2 neighbours are concatenated (4C), then norm and one linear layer (2C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm: nn.LayerNorm = BranchNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Maps (B, H, W, C) to (B, ceil(H/2), ceil(W/2), 2C)."""
        return self.reduction(self.norm(merge_neighbours(x_BHWC)))


class PostNormPatchMerging(PatchMerging):
    """Merges patches as in V2: the linear layer comes before the norm."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.norm(self.reduction(merge_neighbours(x_BHWC)))


class BranchNorm(nn.LayerNorm):
    """Computes the layer norm of a branch, whose output has the dtype of its input, also under autocast on a GPU.

    There, autocast would copy a half-precision input to fp32, and the linear layer after the norm would copy the fp32 output
    back. The kernel computes mean and variance in fp32 either way; what changes is that the affine weights are rounded to half
    precision, as those of the linear layers are. The norms at which the residual stream starts (patch embedding, merging of V2)
    are no BranchNorms, so that it remains in fp32 where autocast has it in fp32. On a CPU, autocast leaves layer norms alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" or x.dtype == self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class SwinBlock(nn.Module):
    """Computes equation 3 of the paper, one line each; `drop_path(x, branch)` is x + branch(x) but for dropped images.

    In Swin-MLP, a `WindowMlp` takes the place of attention.

    x ─┬─ norm1 ─ attention ─ drop path ─(+)─┬─ norm2 ─ MLP ─ drop path ─(+)─
       └─────────────────────────────────────┘└──────────────────────────┘
    """

    def __init__(
        self, attention: nn.Module, dim: int, mlp_ratio: float, drop_path: float, drop_path_mode: DropPathMode = "mask"
    ) -> None:
        super().__init__()
        self.norm1 = BranchNorm(dim)
        self.attn = attention
        self.norm2 = BranchNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path, drop_path_mode)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        _compile_for_size(x_BHWC, (1, 2, 3))
        x_BHWC = self.drop_path(x_BHWC, lambda x: self.attn(self.norm1(x)))
        return self.drop_path(x_BHWC, lambda x: self.mlp(self.norm2(x)))


class PostNormSwinBlock(SwinBlock):
    """Computes the block of V2 (ref. 2, section 3.2): each branch ends with a norm. Its initial weight is 0, for an identity.

    x ─┬─ attention ─ norm1 ─ drop path ─(+)─┬─ MLP ─ norm2 ─ drop path ─(+)─
       └─────────────────────────────────────┘└──────────────────────────┘
    """

    def __init__(
        self, attention: nn.Module, dim: int, mlp_ratio: float, drop_path: float, drop_path_mode: DropPathMode = "mask"
    ) -> None:
        super().__init__(attention, dim, mlp_ratio, drop_path, drop_path_mode)
        nn.init.zeros_(self.norm1.weight)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        _compile_for_size(x_BHWC, (1, 2, 3))
        x_BHWC = self.drop_path(x_BHWC, lambda x: self.norm1(self.attn(x)))
        return self.drop_path(x_BHWC, lambda x: self.norm2(self.mlp(x)))


class Mlp(nn.Module):
    """Applies two linear layers with a GELU between them to each token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_BHWC)))


def _initialise(module: nn.Module) -> None:
    """Initialises linear layers: normal with a standard deviation of 0.02, biases 0. Norms and the patch convolution keep
    torch's initialisation.

    The official code calls `trunc_normal_(std=0.02)`, which truncates at -2 and 2, that is at 100 standard deviations. Its
    random numbers differ between torch 2.11 and 2.14; those of `normal_` do not, so that a seed gives the same weights.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
