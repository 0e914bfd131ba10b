"""A Swin Transformer that gives feature maps beside its logits, in one pass, for distillation.

Shapes: B batch · H, W map of a stage in tokens · C channels of a stage
"""

from collections.abc import Sequence

from torch import Tensor, nn

from swin_lab.models.config import SwinConfig
from swin_lab.models.swin import SwinTransformer, checked_stages


class FeatureModel(nn.Module):
    """Gives logits and, if asked for, the maps of some stages, each after a linear adapter.

    Args:
        model: any Swin Transformer.
        stages: stages whose maps are given, counted from 0, in increasing order.
        channels: channels of each map after its adapter. If None, there are no adapters.

    Raises:
        UserError: the stage does not exist.
    """

    def __init__(self, model: SwinTransformer, stages: Sequence[int], channels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.chosen = checked_stages(stages, len(model.stages))
        own = [model.config.channels[stage] for stage in self.chosen]
        self.adapters = nn.ModuleList(map(nn.Linear, own, channels) if channels is not None else [nn.Identity() for _ in own])

    @property
    def config(self) -> SwinConfig:
        """Returns the hyper-parameters of the model."""
        return self.model.config

    @property
    def img_size(self) -> tuple[int, int]:
        """Returns height and width in pixels of the model's `img_size`."""
        return self.model.img_size

    @property
    def in_channels(self) -> int:
        """Returns the channels of an image."""
        return self.model.in_channels

    def forward(self, image_BCHW: Tensor, with_maps: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Maps images (B, in_channels, height, width) to logits (B, num_classes).

        Args:
            image_BCHW: images of any size.
            with_maps: whether to return the maps as well, (B, H, W, C) each, taken before the next merging.
        """
        if not with_maps:
            logits: Tensor = self.model(image_BCHW)
            return logits
        x_BHWC, maps_BHWC = self.model.tokens(image_BCHW), []
        for stage in self.model.stages:
            x_BHWC = stage(x_BHWC)
            maps_BHWC.append(x_BHWC)
        logits = self.model.head(self.model.norm(x_BHWC).mean(dim=(1, 2)))
        return logits, [adapt(maps_BHWC[stage]) for stage, adapt in zip(self.chosen, self.adapters, strict=True)]

    def layer_of(self, name: str) -> int:
        """Returns the number of the layer of a parameter, see `SwinTransformer.layer_of`: adapters belong to the last one."""
        return self.model.layer_of(name.removeprefix("model."))

    def freeze_stages(self, count: int) -> None:
        """Freezes stages like `SwinTransformer.freeze_stages`; the adapters remain trainable."""
        self.model.freeze_stages(count)
