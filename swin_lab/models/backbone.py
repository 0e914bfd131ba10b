"""The network without its head, as detectors and segmenters use it."""

from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.models.swin import FeatureInfo, SwinTransformer, checked_stages
from swin_lab.validation import check_value


class Backbone(nn.Module):
    """Maps images of any size to a list of feature maps, channels first, each after its own layer norm.

    It copies the network's embedding, its stages up to the last chosen one, and the norm of the last stage. What no chosen map
    needs (head, later stages) is left out, so that every parameter gets a gradient. The network itself never changes, also when
    the backbone is trained.

    Args:
        network: a SwinTransformer, see `swin_lab.load_model`.
        stages: stages whose maps are returned, counted from 0, in increasing order. If None, all.
        norm: False for maps without norms.

    Raises:
        UserError: the network is not a SwinTransformer, has no such stage, or is that of another backbone.
    """

    def __init__(self, network: SwinTransformer, stages: Sequence[int] | None = None, norm: bool = True) -> None:
        super().__init__()
        if not isinstance(network, SwinTransformer):
            raise UserError(f"a {type(network).__name__} has no feature maps per stage; a Backbone needs a SwinTransformer")
        check_value("norm", norm, bool)
        self.chosen = checked_stages(stages, len(network.stages))
        self.feature_info: list[FeatureInfo] = [network.feature_info[i] for i in self.chosen]
        """Returns channels and stride of every returned map."""
        if isinstance(network.norm, nn.Identity):
            raise UserError("this network is already that of a backbone; create or load another one")
        last = len(network.stages) - 1
        copied = deepcopy(network)
        final_norm = copied.norm
        copied.stages = copied.stages[: self.chosen[-1] + 1]
        copied.norm, copied.head = nn.Identity(), nn.Identity()
        self.network = copied
        self.norms = nn.ModuleList(
            final_norm if i == last else nn.LayerNorm(network.config.channels[i]) for i in self.chosen if norm
        )
        self.train(network.training)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Maps (B, in_channels, height, width) to maps (B, channels, height / stride, width / stride), see `feature_info`."""
        return self.network.features(image_BCHW, self.chosen, list(self.norms) or None)

    def freeze_stages(self, count: int) -> None:
        """Freezes stages like `SwinTransformer.freeze_stages`; the norms remain trainable."""
        self.network.freeze_stages(count)
