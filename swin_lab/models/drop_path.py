"""Residual branches that are left out for random images while training: drop path, also called stochastic depth.

References:
1. Deep Networks with Stochastic Depth, Huang et al. 2016 (arXiv 1603.09382).
2. DINOv2, Oquab et al. 2023 (arXiv 2304.07193), section 5, "Efficient stochastic depth": computing nothing for what is dropped.

Shapes: B batch · H, W map · C channels · K images that are kept
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

DropPathMode = Literal["mask", "skip"]


class DropPath(nn.Module):
    """Computes x + branch(x); while training, leaves the branch out for random images, and scales up that of the others.

    "mask" computes the branch of all images and multiplies that of each by 0 with probability `rate`, independently, as in the
    published recipes. "skip" chooses a fixed number K of the B images, every subset with the same probability, and computes
    the branch of those only: K = B * (1 - rate), rounded, and at least 1. The scale is B / K, which keeps the expectation.
    Three things differ: the number of dropped images does not vary; the rate is rounded to a multiple of 1 / B, so that it is 0
    where B * rate < 1/2 (B counts the images that a device processes at once); and images of a batch are dropped in dependence
    on each other. Its effect on accuracy has not been measured here.

    Args:
        rate: probability that the branch of an image is left out.
        mode: see above.
    """

    def __init__(self, rate: float, mode: DropPathMode) -> None:
        super().__init__()
        self.p = rate
        self.mode = mode

    def forward(self, x_BHWC: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Adds `branch`, which maps any number of images (K, H, W, C) to the same shape, to x (B, H, W, C)."""
        if self.mode == "mask" or not self.training:
            return x_BHWC + self._masked(branch(x_BHWC))
        B = x_BHWC.shape[0]
        kept = num_kept(B, self.p)
        if kept == B:
            return x_BHWC + branch(x_BHWC)
        chosen_K = torch.randperm(B, device=x_BHWC.device)[:kept]
        branch_KHWC = branch(x_BHWC.index_select(0, chosen_K))
        dtype = torch.promote_types(x_BHWC.dtype, branch_KHWC.dtype)
        return x_BHWC.to(dtype).index_add(0, chosen_K, branch_KHWC.to(dtype), alpha=B / kept)

    def _masked(self, branch_BHWC: Tensor) -> Tensor:
        """Multiplies the branch of every image by 0 with the probability of the rate, else by 1 / (1 - rate)."""
        if not (self.training and self.p > 0 and torch.compiler.is_dynamo_compiling()):
            return stochastic_depth(branch_BHWC, self.p, "row", self.training)
        # The same in a form whose graph does not contain the rate, so that the blocks of a stage share one compiled graph.
        keep = 1 - self.p
        draws_B111 = torch.rand(branch_BHWC.shape[0], 1, 1, 1, device=branch_BHWC.device)
        return branch_BHWC * ((draws_B111 < keep) / keep).to(branch_BHWC.dtype)


def num_kept(batch: int, rate: float) -> int:
    """Returns the number of images of a batch whose branch "skip" computes."""
    return min(batch, max(1, round(batch * (1 - rate))))
