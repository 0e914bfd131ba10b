"""The network without its head, as detectors and segmenters use it."""

from collections.abc import Sequence

from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.models.swin import FeatureInfo, SwinTransformer, checked_stages


class Backbone(nn.Module):
    """Images of any size -> a list of maps, channels first, each through a layer norm of its own.

    It takes over the network's embedding and stages; what no chosen map needs (head, later stages) is dropped, so that every
    parameter learns. The norm of the last stage starts as the network's own.

    Args:
        network: with weights or without, see `swin_lab.load_model`; it is changed.
        stages: which maps, counted from 0, in rising order; None for all.
        norm: False for the bare maps.

    Raises:
        UserError: there is no such stage, or the network is the backbone of another one already.
    """

    def __init__(self, network: SwinTransformer, stages: Sequence[int] | None = None, norm: bool = True) -> None:
        super().__init__()
        if not isinstance(network, SwinTransformer):
            raise UserError(f"a {type(network).__name__} has no feature maps per stage; a Backbone needs a SwinTransformer")
        self.chosen = checked_stages(stages, len(network.stages))
        self.feature_info: list[FeatureInfo] = [network.feature_info[i] for i in self.chosen]
        """Channels and stride of every map that is returned."""
        if isinstance(network.norm, nn.Identity):
            raise UserError("this network is a backbone already; create or load another one")
        last = len(network.stages) - 1
        final_norm = network.norm
        network.stages = network.stages[: self.chosen[-1] + 1]
        network.norm, network.head = nn.Identity(), nn.Identity()
        self.network = network
        self.norms = nn.ModuleList(
            final_norm if i == last else nn.LayerNorm(network.shape.channels[i]) for i in self.chosen if norm
        )
        self.train(network.training)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """(B, in_channels, height, width) -> (B, channels, height / stride, width / stride), as `feature_info` says."""
        return self.network.features(image_BCHW, self.chosen, list(self.norms) or None)

    def freeze_stages(self, count: int) -> None:
        """As `SwinTransformer.freeze_stages`; the norms go on learning."""
        self.network.freeze_stages(count)
