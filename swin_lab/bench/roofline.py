"""The roofline of a network: the least time that its memory traffic and its arithmetic take on a device.

Each operation takes at least the time of its bytes at the bandwidth of the memory, and at least that of its floating-point
operations (FLOPs) at the rate of matrix products (Williams et al. 2009, doi 10.1145/1498765.1498785). The operations are those
of an implementation that joins every elementwise operation with the matrix product before or after it, and computes attention
without storing its weights: each tensor between two operations is written once and read once.
"""

from dataclasses import dataclass
from math import prod

from swin_lab.bench.cost import EMBED, HEAD, MERGING, MLP, mixer_part, padded_maps, stage_name
from swin_lab.models import SwinConfig

ATTENTION_SHARE = 200 / 650
"""Assumed rate of the small products of attention in a fused kernel on a GPU, as a share of that of large products."""


@dataclass(frozen=True)
class Rates:
    """Contains the rates of a device."""

    bandwidth: float
    """Bytes per second, reads plus writes."""
    products: float
    """FLOPs per second of large matrix products."""
    attention: float
    """FLOPs per second of the small matrix products of attention."""


@dataclass(frozen=True)
class Limit:
    """Contains the least time of a part of the network per image, in seconds."""

    section: str
    part: str
    forward: float
    backward: float


@dataclass(frozen=True)
class Operation:
    """Describes an operation by its bytes, for elements of two bytes, and by its FLOPs."""

    forward: float
    """Bytes of an inference."""
    backward: float
    """Bytes of the backward pass."""
    flops: float = 0.0
    """FLOPs of the forward pass."""
    stored: float = 0.0
    """Further bytes that the forward pass of a training step writes for the backward pass."""
    gradients: int = 2
    """FLOPs of the backward pass relative to those of the forward pass."""
    in_attention: bool = False

    def limit(self, rates: Rates, *, training: bool, scale: float) -> tuple[float, float]:
        """Returns the least seconds of the forward and of the backward pass; `scale` multiplies the bytes."""
        rate = rates.attention if self.in_attention else rates.products
        forward = max((self.forward + training * self.stored) * scale / rates.bandwidth, self.flops / rate)
        backward = max(self.backward * scale / rates.bandwidth, self.gradients * self.flops / rate)
        return forward, backward * training


def roofline(config: SwinConfig, rates: Rates, *, training: bool, element_bytes: int = 2) -> list[Limit]:
    """Returns the least time of every part of the network per image.

    The update of the weights is not included: its time per image falls with the batch size.

    Args:
        config: hyper-parameters; images have `img_size`.
        rates: of the device.
        training: whether there is a backward pass.
        element_bytes: 2 for bf16 and fp16, 4 for fp32.

    Returns:
        One entry for the patch embedding; for the merging, attention and MLP of every stage; and for the head.
    """
    limits = []
    for section, part, operations in _parts(config):
        times = [operation.limit(rates, training=training, scale=element_bytes / 2) for operation in operations]
        limits.append(Limit(section, part, sum(forward for forward, _ in times), sum(backward for _, backward in times)))
    return limits


def images_per_second(limits: list[Limit]) -> float:
    """Returns the images per second of a network that reaches the roofline in all of its parts."""
    return 1 / sum(limit.forward + limit.backward for limit in limits)


def _parts(config: SwinConfig) -> list[tuple[str, str, list[Operation]]]:
    """Returns section, part and operations, per image, from the first to the last."""
    H, W = config.maps[0]
    pixels = config.in_channels * config.patch_size**2
    image, first = H * W * pixels, H * W * config.embed_dim
    projection = Operation(2 * image + 2 * first, 2 * image + 2 * first, 2 * first * pixels, gradients=1)
    found = [(EMBED, "", [projection, Operation(4 * first, 8 * first)])]
    for i, ((H, W), C, (M, N)) in enumerate(zip(config.maps, config.channels, config.windows, strict=True)):
        elements = H * W * C
        if i > 0:  # It reads two elements for each that it writes.
            found.append((stage_name(i), MERGING, [Operation(6 * elements, 12 * elements, 4 * C * elements)]))
        if config.token_mixer == "mlp":
            mixing = [part for padded in padded_maps(config, i) for part in _window_mlp(elements, prod(padded) * C, M * N)]
        else:
            mixing = _attention(elements, C, M * N) * config.depths[i]
        found.append((stage_name(i), mixer_part(config), mixing))
        found.append((stage_name(i), MLP, _mlp(elements, C, config.mlp_ratio) * config.depths[i]))
    H, W = config.maps[-1]
    last, C = H * W * config.channels[-1], config.channels[-1]
    found.append((HEAD, "", [Operation(2 * last, 4 * last), Operation(0, 0, 2 * C * config.num_classes)]))
    return found


def _attention(elements: int, C: int, area: int) -> list[Operation]:
    """Returns the operations of an attention branch.

    Args:
        elements: of the feature map, tokens times channels.
        C: channels.
        area: tokens of a window.
    """
    return [
        Operation(4 * elements, 8 * elements),  # norm: reads and writes; its backward pass also the gradient of the residual
        Operation(8 * elements, 16 * elements, 6 * C * elements),  # qkv
        Operation(8 * elements, 16 * elements, 4 * area * elements, in_attention=True),  # reads q, k, v, writes the output
        Operation(6 * elements, 8 * elements, 2 * C * elements),  # projection; reads and writes the residual
    ]


def _window_mlp(elements: int, padded: int, area: int) -> list[Operation]:
    """Returns the operations of the branch that Swin-MLP has instead of attention.

    Args:
        elements: of the feature map, tokens times channels.
        padded: elements of the padded map.
        area: tokens of a window.
    """
    return [
        Operation(4 * elements, 8 * elements),  # norm, as in attention
        Operation(6 * elements, 8 * elements, 2 * area * padded, in_attention=True),  # reads and writes the residual, too
    ]


def _mlp(elements: int, C: int, ratio: float) -> list[Operation]:
    """Returns the operations of an MLP branch; the first linear layer stores the input of GELU."""
    hidden = 2 * ratio * elements
    return [
        Operation(4 * elements, 8 * elements),  # norm
        Operation(2 * elements + hidden, 4 * elements + 2 * hidden, 2 * ratio * C * elements, stored=hidden),
        Operation(0, hidden),  # gradient of GELU
        Operation(hidden + 4 * elements, 4 * elements + 2 * hidden, 2 * ratio * C * elements),  # with the residual
    ]
