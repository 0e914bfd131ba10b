"""Describes a network for the architecture figure of `swin_lab.report`."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from swin_lab.models import SwinTransformer
from swin_lab.models.window_mlp import zero_padding
from swin_lab.ops import geometry
from swin_lab.ops.geometry import Size
from swin_lab.report import ArchitectureDrawing, BlockDrawing, StageDrawing

EXAMPLE_MAP, EXAMPLE_WINDOW, EXAMPLE_SHIFT = (8, 8), (4, 4), (2, 2)
"""The map on which the figure shows how windows shift: four windows, whose masks all differ."""
MIXERS = {"attention": "MSA", "mlp": "MLP"}
"""`token_mixer` of a network -> second part of the names of its layers, as in W-MSA."""


def architecture_of(
    network: SwinTransformer, name: str, img_size: Size | None = None, image_HWC: np.ndarray | None = None
) -> ArchitectureDrawing:
    """Describes a network, with the windows that it uses for images of a size.

    Args:
        network: the network; it can be on the meta device.
        name: title of the figure.
        img_size: height and width in pixels. If None, those of the network.
        image_HWC: an image to be drawn, of this size, with values from 0 to 1. If None, a landscape is drawn.

    Raises:
        UserError: the size is not possible.
    """
    own = network.config
    config = own if img_size is None else replace(own, img_size=img_size, window_size=own.windows)
    is_mlp = own.token_mixer == "mlp"
    windows = own.windows if is_mlp else config.windows  # Those of Swin-MLP do not become smaller on smaller maps.
    stages = []
    for i, stage in enumerate(network.stages):
        shifted = tuple(block.attn.shift != (0, 0) for block in stage.blocks)  # type: ignore[union-attr]
        stages.append(StageDrawing(config.maps[i], config.channels[i], windows[i], config.num_heads[i], shifted))
    first_blocks: list[nn.Module] = list(network.stages[0].blocks)[:2]  # type: ignore[arg-type]
    return ArchitectureDrawing(
        name=name,
        parameters=own.num_parameters,
        img_size=config.image_size,
        in_channels=config.in_channels,
        patch_size=config.patch_size,
        stages=tuple(stages),
        blocks=tuple(
            BlockDrawing(shifted, _branches_of(block, config.embed_dim), MIXERS[own.token_mixer])
            for block, shifted in zip(first_blocks, stages[0].shifted, strict=False)
        ),
        num_classes=config.num_classes,
        shift_example=(EXAMPLE_MAP, EXAMPLE_WINDOW, EXAMPLE_SHIFT),
        mixer=MIXERS[own.token_mixer],
        regions_HW=_padded_example() if is_mlp else _rolled_example(),
        image_HWC=image_HWC,
    )


def _rolled_example() -> np.ndarray:
    """Returns the region of every token of the example after the cyclic shift."""
    return geometry.region_labels(EXAMPLE_MAP, EXAMPLE_WINDOW, EXAMPLE_SHIFT, torch.device("cpu")).numpy()


def _padded_example() -> np.ndarray:
    """Returns 1 for every token of the example, and 0 for the padding by which Swin-MLP shifts windows."""
    return np.pad(np.ones(EXAMPLE_MAP, int), zero_padding(EXAMPLE_MAP, EXAMPLE_WINDOW, EXAMPLE_SHIFT))


def _branches_of(block: nn.Module, channels: int) -> tuple[tuple[str, ...], ...]:
    """Returns the names of a block's layers in the order they run, for each residual branch; drop path ends a branch."""
    ran: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _arguments, _output, name=name: ran.append(name))
        for name, layer in block.named_children()
    ]
    with torch.no_grad():
        block(torch.zeros(1, 1, 1, channels, device=next(block.parameters()).device))
    for hook in hooks:
        hook.remove()
    branches: list[tuple[str, ...]] = [()]
    for name in ran:
        branches = [*branches, ()] if name == "drop_path" else [*branches[:-1], (*branches[-1], name)]
    return tuple(branches[:-1])
