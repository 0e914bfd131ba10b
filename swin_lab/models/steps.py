"""The steps of one forward pass, in the order of Fig. 3 of the paper, with what each of them costs.

Reference: Swin Transformer, arXiv 2103.14030, sections 3.1 and 3.2 (equations 1 and 2 compare global and window attention).
"""

from dataclasses import dataclass, replace
from math import prod

from torch import nn

from swin_lab.models.attention import CosineWindowAttention, WindowAttention
from swin_lab.models.config import SwinConfig
from swin_lab.models.cost import (
    attention_macs,
    embedding_macs,
    head_macs,
    merging_macs,
    mlp_macs,
    norm_macs,
    window_mlp_macs,
)
from swin_lab.models.swin import SwinTransformer
from swin_lab.models.window_mlp import WindowMlp, padded_map
from swin_lab.ops.geometry import Size, fit_window

Shape = tuple[int, ...]
"""(H, W, C) of a map, or (C,) of a vector."""

BYTES = 4
"""Bytes of a value in float32."""


@dataclass(frozen=True)
class Windows:
    """Describes the windows in which the attention of a block, or the window MLP of Swin-MLP, is computed."""

    map_size: Size
    padded_size: Size
    """Size of the map with the padding that fills the last windows; in Swin-MLP also with that which shifts them."""
    window: Size
    """In use: no larger than the map."""
    shift: Size
    """In use: 0 along an axis that one window covers."""
    heads: int

    @property
    def count(self) -> int:
        """Returns the number of windows."""
        return prod(self.padded_size) // self.tokens

    @property
    def tokens(self) -> int:
        """Returns the number of tokens of a window."""
        return prod(self.window)

    @property
    def products_per_window(self) -> int:
        """Returns the dot products of queries and keys in a window, or the weights of the window MLP, for one head."""
        return self.tokens**2

    @property
    def products(self) -> int:
        """Returns the dot products in all windows, for one head."""
        return self.count * self.products_per_window

    @property
    def global_products(self) -> int:
        """Returns the dot products of global attention on the map, for one head."""
        return prod(self.map_size) ** 2


@dataclass(frozen=True)
class Step:
    """Describes a step of the pass of one image, or equal steps of several blocks of a stage."""

    name: str
    stage: int | None
    """Counted from 0. If None, the step is outside the stages."""
    count: int
    """Number of blocks of the stage that have this step; 1 for other steps."""
    before: Shape
    after: Shape
    parameters: int
    """Of all blocks together, like the next two."""
    macs: int
    """Multiply-accumulates in the convention of `count_macs`."""
    activation_bytes: int
    """Bytes of float32 that the results of norms, linear layers, GELU, attention (weights and values), window MLP (with its
    padding) and sums take."""
    windows: Windows | None = None
    """For attention and window MLP only."""


def steps_of(network: SwinTransformer, img_size: Size | None = None) -> list[Step]:
    """Returns the steps of the pass of one image. Nothing is computed, so that the network can be on the meta device.

    A stage has one step each for the attention of its blocks with regular windows (W-MSA) and with shifted ones (SW-MSA), and
    for their MLPs. In Swin-MLP, a window MLP (W-MLP, SW-MLP) takes the place of attention.

    Args:
        network: the network, whose windows and parameters are those of its `config`.
        img_size: height and width of the image in pixels, of any size. If None, that of the network.

    Raises:
        UserError: the size is not possible.
    """
    own = network.config
    size = own.image_size if img_size is None else img_size
    config = replace(own, img_size=size, window_size=own.windows, attention_backend="auto")
    channels, patch = config.in_channels, config.patch_size
    (H, W), C = config.maps[0], config.embed_dim
    values = channels * patch**2
    steps = [
        Step("patch partition", None, 1, (*size, channels), (H, W, values), 0, 0, BYTES * H * W * values),
        Step(
            "linear embedding",
            0,
            1,
            (H, W, values),
            (H, W, C),
            _parameters(network.embed),
            embedding_macs(config),
            BYTES * 2 * H * W * C,
        ),
    ]
    for i in range(len(config.depths)):
        steps += _stage_steps(network, config, i)
    (H, W), C = config.maps[-1], config.channels[-1]
    steps += [
        Step("norm", None, 1, (H, W, C), (H, W, C), _parameters(network.norm), norm_macs(config), BYTES * H * W * C),
        Step("average pooling", None, 1, (H, W, C), (C,), 0, 0, BYTES * C),
    ]
    if K := config.num_classes:
        steps.append(Step("head", None, 1, (C,), (K,), _parameters(network.head), head_macs(config), BYTES * K))
    return steps


def _stage_steps(network: SwinTransformer, config: SwinConfig, stage: int) -> list[Step]:
    """Returns patch merging, and the steps of the blocks with regular and with shifted windows."""
    map_size, C, blocks = config.maps[stage], config.channels[stage], list(network.stages[stage].blocks)  # type: ignore[arg-type]
    tokens, shape = prod(map_size), (*map_size, C)
    steps = []
    if stage > 0:
        merge: nn.Module = network.stages[stage].merge  # type: ignore[assignment]
        before, neighbours = (*config.maps[stage - 1], config.channels[stage - 1]), (*map_size, 2 * C)
        normed = 2 * C if config.version == 1 else C  # V1 normalises the concatenated 4 * C/2 channels, V2 the reduced ones.
        size, macs = BYTES * tokens * (normed + C), merging_macs(config, stage)
        steps += [
            Step("2x2 neighbours", stage, 1, before, neighbours, 0, 0, BYTES * tokens * 2 * C),
            Step("patch merging", stage, 1, neighbours, shape, _parameters(merge), macs, size),
        ]
    for kind in (blocks[::2], blocks[1::2]):
        if not kind:
            continue
        count = len(kind)
        name, macs, values, windows = _token_mixer(config, stage, kind[0].attn)
        parameters = sum(_parameters(block.attn) + _parameters(block.norm1) for block in kind)
        steps.append(Step(name, stage, count, shape, shape, parameters, count * macs, BYTES * count * values, windows))
        # Norm, output and sum have C values per token, both sides of the GELU have the hidden channels.
        size = BYTES * count * tokens * (3 * C + 2 * int(C * config.mlp_ratio))
        parameters = sum(_parameters(block.mlp) + _parameters(block.norm2) for block in kind)
        steps.append(Step("MLP", stage, count, shape, shape, parameters, count * mlp_macs(config, stage), size))
    return steps


def _token_mixer(
    config: SwinConfig, stage: int, layer: WindowAttention | CosineWindowAttention | WindowMlp
) -> tuple[str, int, int, Windows]:
    """Returns name, operations, values of the results, and windows of the attention or the window MLP of one block."""
    (H, W), C, heads = config.maps[stage], config.channels[stage], layer.num_heads
    (M, N), shift = fit_window((H, W), layer.window, layer.shift)
    prefix = "W" if layer.shift == (0, 0) else "SW"
    if isinstance(layer, WindowMlp):  # Its window does not become smaller on a smaller map.
        padded = padded_map((H, W), layer.window, layer.shift)
        # Norm and sum have C values per token, the window MLP has C for every place in a window.
        values = (2 * H * W + prod(padded)) * C
        macs = window_mlp_macs(C, (H, W), layer.window, layer.shift)
        return f"{prefix}-MLP", macs, values, Windows((H, W), padded, layer.window, shift, heads)
    windows = Windows((H, W), (H + -H % M, W + -W % N), (M, N), shift, heads)
    # Norm, queries, keys and values, weighted values, projection and sum have 7 C values per token.
    values = 7 * H * W * C + heads * windows.products
    return f"{prefix}-MSA", attention_macs(config, stage), values, windows


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
