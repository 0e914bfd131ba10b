"""The matrix products of a network with their shapes and floating-point operations (FLOPs), counted from its hyper-parameters.

They are every linear layer, the patch embedding, and both products of attention, or the product of the window MLP of Swin-MLP.
The bias MLP of V2 is left out: its FLOPs do not depend on the batch, and for one image of SwinV2-T they are 0.3 % of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from swin_lab.models import SwinConfig
from swin_lab.models.window_mlp import padded_map
from swin_lab.ops.geometry import Size

EMBED, HEAD = "embed", "head"
"""Sections of the network before its first stage, and after its last one."""
MERGING, ATTENTION, WINDOW_MLP, MLP = "merging", "attention", "window MLP", "MLP"
"""Parts of a stage; norms and residuals belong to the part that follows or precedes them."""


def stage_name(index: int) -> str:
    """Returns the name of a stage, whose index counts from 0."""
    return f"stage {index + 1}"


def mixer_part(config: SwinConfig) -> str:
    """Returns which part of a stage combines the tokens of windows."""
    return WINDOW_MLP if config.token_mixer == "mlp" else ATTENTION


def padded_maps(config: SwinConfig, stage: int) -> list[Size]:
    """Returns the size of the padded map of every block of a stage of Swin-MLP."""
    M, N = config.windows[stage]
    shifts = [(M // 2, N // 2) if j % 2 else (0, 0) for j in range(config.depths[stage])]
    return [padded_map(config.maps[stage], (M, N), shift) for shift in shifts]


@dataclass(frozen=True)
class Product:
    """Describes equal matrix products of a forward pass: `count` times `batches` products (m, k) x (k, n)."""

    section: str
    part: str
    m: int
    k: int
    n: int
    batches: int = 1
    """1 for a linear layer, whose second factor is its weights; windows times heads for the products of attention; heads for
    those of Swin-MLP."""
    bias: bool = False
    count: int = 1
    """How often the product occurs, once per block for example."""
    input_gradient: bool = True
    """Whether a training step computes the gradient of the first factor; images need none."""

    def flops(self, training: bool) -> int:
        """Returns floating-point operations of all of them; in training, with the two products of the backward pass."""
        products = 1 + training * (1 + self.input_gradient)
        return 2 * self.m * self.k * self.n * self.batches * self.count * products


def matrix_products(config: SwinConfig, images: int) -> list[Product]:
    """Returns the matrix products of a forward pass over a number of images of `config.img_size`, in their order."""
    H, W = config.maps[0]
    pixels = config.in_channels * config.patch_size**2
    found = [Product(EMBED, "", images * H * W, pixels, config.embed_dim, bias=True, input_gradient=False)]
    for i, ((H, W), C, (M, N)) in enumerate(zip(config.maps, config.channels, config.windows, strict=True)):
        section, tokens, blocks, hidden = stage_name(i), images * H * W, config.depths[i], int(C * config.mlp_ratio)
        if i > 0:
            found.append(Product(section, MERGING, tokens, 2 * C, C))
        heads, area = config.num_heads[i], M * N
        pairs = images * -(-H // M) * -(-W // N) * heads
        if config.token_mixer == "mlp":
            columns = [images * prod(padded) // area * C // heads for padded in padded_maps(config, i)]
            found += [Product(section, WINDOW_MLP, number, area, area, batches=heads) for number in columns]
        else:
            found += [
                Product(section, ATTENTION, tokens, C, 3 * C, bias=config.qkv_bias, count=blocks),
                Product(section, ATTENTION, area, C // heads, area, batches=pairs, count=blocks),
                Product(section, ATTENTION, area, area, C // heads, batches=pairs, count=blocks),
                Product(section, ATTENTION, tokens, C, C, bias=True, count=blocks),
            ]
        found += [
            Product(section, MLP, tokens, C, hidden, bias=True, count=blocks),
            Product(section, MLP, tokens, hidden, C, bias=True, count=blocks),
        ]
    if config.num_classes:
        found.append(Product(HEAD, "", images, config.channels[-1], config.num_classes, bias=True))
    return found


def flops(products: Sequence[Product], training: bool) -> int:
    """Returns the floating-point operations of matrix products, two per multiply-accumulate."""
    return sum(product.flops(training) for product in products)
