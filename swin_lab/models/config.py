"""The hyper-parameters of a Swin Transformer: the one definition that network, variants, weight files and YAML share."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from swin_lab.errors import UserError
from swin_lab.models.attention import BIAS_MLP_WIDTH
from swin_lab.models.drop_path import DropPathMode
from swin_lab.ops.geometry import Size
from swin_lab.ops.triton_support import check_shapes
from swin_lab.ops.window_attention import attention_backend
from swin_lab.validation import Expected, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, check_fields

MAX_IMAGE_SIDE = 16_384
"""Upper bound of the side of an image in pixels."""

ImageSide = Annotated[int, Ge(1), Le(MAX_IMAGE_SIDE)]
ImageSize = ImageSide | tuple[ImageSide, ImageSide]
"""Side of a square, or (height, width), in pixels."""

Pair = tuple[PositiveInt, PositiveInt]
"""Height and width."""

PerStage = Annotated[
    PositiveInt | tuple[PositiveInt | Pair, ...],
    Expected("a positive integer, or a list with one entry per stage, each a positive integer or [height, width]"),
]
PerStageOrZero = Annotated[
    NonNegativeInt | tuple[NonNegativeInt | Pair, ...],
    Expected("a non-negative integer, or a list with one entry per stage, each a non-negative integer or [height, width]"),
]

Windows = int | Sequence[int | Sequence[int]]
"""Type of window sizes in arguments: one number, or one entry per stage, each a number or [height, width]."""

MAX_STAGES = 16
MAX_BLOCKS = 1000
"""Upper bound of the sum of `depths`; published networks have up to 26 blocks, and up to 54 in SwinV2-G (arXiv 2111.09883)."""
MAX_PARAMETERS = 10 * 10**9
"""Upper bound of the number of parameters, 40 GB in float32. The largest published Swin Transformer, SwinV2-G, has 3 * 10^9."""
MAX_WINDOW_SIDE = 128
"""Upper bound of a window in use: the index of its pairs of tokens has side^4 entries, which take 2 GiB at 128."""

UPPER_BOUNDS = {
    "img_size": MAX_IMAGE_SIDE,
    "patch_size": MAX_IMAGE_SIDE,
    "in_channels": 65_536,
    "num_classes": 10_000_000,
    "embed_dim": 65_536,
    "depths": MAX_BLOCKS,
    "num_heads": 65_536,
    "window_size": MAX_IMAGE_SIDE,
    "pretrained_window_sizes": MAX_IMAGE_SIDE,
    "mlp_ratio": 64,
}
"""Upper bounds of fields, and of their entries, far above those of published models. They are checked before anything is
computed, so that neither a mistyped value nor the description in a file from elsewhere allocates memory."""

BODY = ("version", "token_mixer", "patch_size", "embed_dim", "depths", "num_heads", "mlp_ratio", "qkv_bias")
"""Fields that must be equal in weights and network; the others can change when weights are transferred."""


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """Contains hyper-parameters, with those of Swin-T as defaults, and derived values; reading these builds no network.

    Raises:
        UserError: a value is invalid, or the values do not fit each other; the message names them.
    """

    version: Annotated[Literal[1, 2], Expected("1 (Swin Transformer) or 2 (Swin Transformer V2)")] = 1
    """1 is Swin Transformer, 2 is Swin Transformer V2."""
    token_mixer: Literal["attention", "mlp"] = "attention"
    """What combines the tokens of a window: attention, or in Swin-MLP a linear map, see `swin_lab.models.window_mlp`."""
    img_size: Annotated[PositiveInt | Pair, Expected("a positive integer or [height, width], both positive integers")] = 224
    """Image size in pixels for which windows are limited to the maps: one number, or [height, width]."""
    patch_size: PositiveInt = 4
    """Side of a patch in pixels."""
    in_channels: PositiveInt = 3
    """Channels of an image."""
    num_classes: Annotated[NonNegativeInt, Expected("a positive integer, or 0 for a model without head")] = 1000
    """Number of logits; 0 for a model without head."""
    embed_dim: PositiveInt = 96
    """C, the channels of the first stage; they double with every stage."""
    depths: tuple[PositiveInt, ...] = (2, 2, 6, 2)
    """Blocks per stage."""
    num_heads: tuple[PositiveInt, ...] = (3, 6, 12, 24)
    """Attention heads per stage; each divides the channels of its stage."""
    window_size: PerStage = 7
    """Side of a window in tokens; one number, or one entry per stage, each a number or [height, width]."""
    pretrained_window_sizes: PerStageOrZero = 0
    """V2 only: the windows with which the position bias was trained, in the form of `window_size`; 0 stands for `window_size`.
    Set it if training continues with larger windows (12to16 in the names)."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden channels of a block's MLP divided by C."""
    qkv_bias: bool = True
    """Whether queries, keys and values have a bias (V2: queries and values)."""
    drop_path_rate: Fraction = 0.1
    """Probability that the last block's branches are dropped; it grows linearly from 0 at the first block."""
    drop_path_mode: DropPathMode = "mask"
    """Whether a dropped branch is computed and multiplied by 0 ("mask", as in the published recipes) or not computed ("skip":
    faster, and not quite the same, see `swin_lab.models.drop_path`)."""
    activation_checkpointing: bool = False
    """Whether each block is recomputed in the backward pass instead of storing its activations."""
    attention_backend: str = "auto"
    """Implementation of window attention, see `swin_lab.ops.window_attention`: auto, reference, sdpa or triton."""

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_bounds()
        attention_backend(self.attention_backend)  # It raises UserError for an unknown name.
        self._check_token_mixer()
        self._check_stages()
        if int(self.embed_dim * self.mlp_ratio) < 1:
            raise UserError(f"mlp_ratio={self.mlp_ratio} gives an MLP without channels; the paper uses 4.0")
        self._check_windows()
        if self.attention_backend == "triton":
            for window, channels, heads in zip(self.windows, self.channels, self.num_heads, strict=True):
                check_shapes(channels // heads, window)
        if self.num_parameters > MAX_PARAMETERS:
            raise UserError(
                f"embed_dim={self.embed_dim} with depths={list(self.depths)} and num_classes={self.num_classes} gives "
                f"{self.num_parameters:,} parameters; at most {MAX_PARAMETERS:,} are supported"
            )

    def _check_bounds(self) -> None:
        for name in ("depths", "num_heads", "window_size", "pretrained_window_sizes"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) > MAX_STAGES:
                raise UserError(f"{name} has {len(value)} entries; at most {MAX_STAGES} stages are supported")
        for name, bound in UPPER_BOUNDS.items():
            value = getattr(self, name)
            if (largest := max(_numbers(value), default=0)) > bound:
                raise UserError(
                    f"{name}={as_lists(value)} is too large: {largest} exceeds {bound}, the largest supported value"
                )
        if sum(self.depths) > MAX_BLOCKS:
            raise UserError(f"depths={list(self.depths)} has {sum(self.depths)} blocks; at most {MAX_BLOCKS} are supported")

    def _check_token_mixer(self) -> None:
        if self.token_mixer == "attention":
            return
        if self.version != 1:
            raise UserError(
                f"token_mixer=mlp is Swin-MLP, which has the blocks of version=1; version={self.version} has attention"
            )
        for name, value, default in (("qkv_bias", "false", True), ("attention_backend", self.attention_backend, "auto")):
            if getattr(self, name) != default:
                raise UserError(f"{name}={value} has no effect with token_mixer=mlp, which computes no attention; leave it out")

    def _check_stages(self) -> None:
        if not self.depths or not self.num_heads:
            empty = "depths" if not self.depths else "num_heads"
            raise UserError(f"{empty}=[] has no stage; give one entry per stage, for example [2,2,6,2]")
        if len(self.depths) != len(self.num_heads):
            raise UserError(
                f"depths={list(self.depths)} has {len(self.depths)} stages and num_heads={list(self.num_heads)} has "
                f"{len(self.num_heads)}; both need one entry per stage"
            )
        for i, (heads, channels) in enumerate(zip(self.num_heads, self.channels, strict=True)):
            if channels % heads:
                divisors = [h for h in range(1, min(channels, 64) + 1) if channels % h == 0]
                raise UserError(
                    f"num_heads={list(self.num_heads)}: {heads} heads do not divide the {channels} channels of stage {i + 1} "
                    f"(embed_dim={self.embed_dim}); choose one of {divisors}"
                )

    def _check_windows(self) -> None:
        for name in ("window_size", "pretrained_window_sizes"):
            sizes = getattr(self, name)
            if isinstance(sizes, tuple) and len(sizes) != len(self.depths):
                raise UserError(
                    f"{name}={as_lists(sizes)} has {len(sizes)} entries for {len(self.depths)} stages; give one number, "
                    f"or one entry per stage (a non-square window is [height,width]: {[[4, 8]] * len(self.depths)})"
                )
        entries = self.pretrained_window_sizes
        if self.version == 1 and any(entries if isinstance(entries, tuple) else (entries,)):
            raise UserError(
                f"pretrained_window_sizes={as_lists(entries)} is for version=2; "
                "version 1 has a separate bias table for every window size"
            )
        if (largest := max(map(max, self.windows))) > MAX_WINDOW_SIDE:
            raise UserError(
                f"window_size={as_lists(self.window_size)} gives windows of {largest} tokens along a side; "
                f"at most {MAX_WINDOW_SIDE} are supported"
            )

    @cached_property
    def image_size(self) -> Size:
        """Returns height and width in pixels."""
        return _pair(self.img_size)

    @cached_property
    def channels(self) -> tuple[int, ...]:
        """Returns the channels of every stage."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))

    @cached_property
    def maps(self) -> tuple[Size, ...]:
        """Returns height and width of every stage's feature map in tokens at `img_size`; padding rounds sizes up."""
        maps = [(-(-self.image_size[0] // self.patch_size), -(-self.image_size[1] // self.patch_size))]
        for _ in self.depths[1:]:
            maps.append((-(-maps[-1][0] // 2), -(-maps[-1][1] // 2)))
        return tuple(maps)

    @cached_property
    def windows(self) -> tuple[Size, ...]:
        """Returns the window of every stage, no larger than its map. Shapes of parameters follow from it."""
        sizes = self.window_size if isinstance(self.window_size, tuple) else (self.window_size,) * len(self.depths)
        pairs = map(_pair, sizes)
        return tuple((min(h, H), min(w, W)) for (h, w), (H, W) in zip(pairs, self.maps, strict=True))

    @cached_property
    def pretrained_windows(self) -> tuple[Size, ...]:
        """Returns for every stage of V2 the window to whose largest offset the position bias is scaled."""
        sizes = self.pretrained_window_sizes
        entries = sizes if isinstance(sizes, tuple) else (sizes,) * len(self.depths)
        return tuple(window if entry == 0 else _pair(entry) for entry, window in zip(entries, self.windows, strict=True))

    @cached_property
    def num_parameters(self) -> int:
        """Returns the number of parameters of the network."""
        count = self.embed_dim * (self.in_channels * self.patch_size**2 + 3)  # patch embedding and its norm
        for i, (C, heads, (M, N)) in enumerate(zip(self.channels, self.num_heads, self.windows, strict=True)):
            hidden = int(C * self.mlp_ratio)
            block = 5 * C + 2 * C * hidden + hidden  # two norms; MLP
            if self.token_mixer == "mlp":
                block += heads * M * N * (M * N + 1)
            elif self.version == 1:
                block += 4 * C * C + C + 3 * C * self.qkv_bias + (2 * M - 1) * (2 * N - 1) * heads  # qkv, projection; table
            else:  # qkv, projection; biases; logit scale; bias MLP
                block += 4 * C * C + C + 2 * C * self.qkv_bias + heads + BIAS_MLP_WIDTH * (3 + heads)
            count += self.depths[i] * block
            if i > 0:
                count += 2 * C * C + (4 * C if self.version == 1 else 2 * C)  # patch merging and its norm
        return count + self.channels[-1] * (2 + self.num_classes) + self.num_classes

    def with_attention(self, backend: str) -> "SwinConfig":
        """Returns the same network with another implementation of attention; Swin-MLP has none and is unchanged."""
        return self if self.token_mixer == "mlp" else replace(self, attention_backend=backend)

    def as_dict(self) -> dict[str, Any]:
        """Returns plain Python, from which the same configuration can be built."""
        return {key: as_lists(value) for key, value in asdict(self).items()}


FIELDS = tuple(field.name for field in fields(SwinConfig))
"""Names of all hyper-parameters."""


def as_lists(value: Any) -> Any:
    """Returns tuples as lists, at any depth, as YAML and JSON have them."""
    return [as_lists(entry) for entry in value] if isinstance(value, tuple | list) else value


def _numbers(value: Any) -> list[float]:
    """Returns the numbers in a value: itself, or those in a tuple at any depth."""
    return [number for entry in value for number in _numbers(entry)] if isinstance(value, tuple) else [value]


def _pair(value: int | tuple[int, int]) -> Size:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
