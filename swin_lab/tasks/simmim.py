"""SimMIM pre-training: masked cells of an image are reconstructed from the others (arXiv 2111.09886); it needs no labels.

The formulas are those of models/simmim.py and data/data_simmim_pt.py in github.com/microsoft/Swin-Transformer at f82860b.

Shapes: B batch · h, w cells of a mask · H, W pixels
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt, Predicate
from torch import Tensor, nn
from torchmetrics import Metric

from swin_lab.errors import UserError
from swin_lab.models import SwinTransformer
from swin_lab.models.simmim import MaskedImageModel, enlarged
from swin_lab.tasks.metrics import SUM_DTYPE
from swin_lab.training import Batch, ImageGrid, MetricFormat, Monitor, RandomNumbers, Task
from swin_lab.validation import Expected, PositiveInt, check_fields

SHOWN_IMAGES = 6
"""Number of images that an evaluation shows."""

MaskRatio = Annotated[float, Gt(0), Lt(1), Expected("a number between 0 and 1")]
Side = Annotated[int, Ge(3), Lt(2**10), Predicate(lambda side: side % 2 == 1)]
NormTargetSize = Annotated[Side | None, Expected("an odd integer from 3 to 1023, or null for targets that are not normalised")]


@dataclass(frozen=True, kw_only=True)
class SimMIM(Task):
    """Learns to reconstruct the masked cells of images, by the mean absolute difference of their normalised pixels.

    Args:
        mask_patch_size: side of a cell of the mask in pixels.
        mask_ratio: fraction of the cells that are masked, rounded up.
        norm_target_size: side in pixels of the square by whose mean and variance a target is normalised around each pixel, as
            for V2 (47). If None, targets are the normalised images themselves, as for V1.

    Raises:
        UserError: a value is invalid.
    """

    monitor: ClassVar[Monitor] = Monitor("loss", "min")
    metric_formats: ClassVar[Mapping[str, MetricFormat]] = {"loss": MetricFormat("masked loss", in_epoch_line=True)}

    mask_patch_size: PositiveInt = 32
    mask_ratio: MaskRatio = 0.6
    norm_target_size: NormTargetSize = None

    def __post_init__(self) -> None:
        check_fields(self, "task.")

    def model_arguments(self) -> dict[str, Any]:
        return {"num_classes": 0}

    def build_network(self, model: nn.Module) -> nn.Module:
        """Returns the model with a mask token and a decoder.

        Raises:
            UserError: the model is no Swin Transformer, its image size is not a multiple of the cells and of its own stride, or
                the mask would hide nothing or everything.
        """
        if not isinstance(model, SwinTransformer):
            raise UserError(f"task=simmim masks the tokens of a SwinTransformer; the model is a {type(model).__name__}")
        size, patch, stride = model.img_size, model.config.patch_size, MaskedImageModel.stride_of(model.config)
        if any(side % stride for side in size):
            raise UserError(
                f"task=simmim: model.img_size={_shown(size)} must be a multiple of {stride}, the pixels per token of the last "
                "stage"
            )
        fitting = [side for side in range(patch, min(size) + 1, patch) if self._fits(side, size)]
        if self.mask_patch_size not in fitting:
            advice = f"choose one of {fitting}" if fitting else "lower task.mask_ratio, or choose larger images"
            raise UserError(
                f"task.mask_patch_size={self.mask_patch_size} does not split images of {_shown(size)} pixels in patches of "
                f"{patch} into equal cells, or task.mask_ratio={self.mask_ratio} masks all of them\nFor the cells, {advice}"
            )
        return MaskedImageModel(model)

    def _fits(self, side: int, size: tuple[int, int]) -> bool:
        cells = (size[0] // side) * (size[1] // side)
        return not any(length % side for length in size) and self._masked(cells) < cells

    def _masked(self, cells: int) -> int:
        """Returns how many of a number of cells are masked."""
        return ceil(cells * self.mask_ratio)

    def draw(self, numbers: RandomNumbers, img_size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Returns the masks, (B, h, w) of bool: the first cells of a random order are masked, equally many in every image."""
        height, width = (side // self.mask_patch_size for side in img_size)
        drawn_BN = np.stack([numbers.uniform() for _ in range(height * width)], axis=1)
        order_BN = drawn_BN.argsort(axis=1, kind="stable")  # Sorting random numbers gives a random permutation.
        mask_BN = np.zeros(order_BN.shape, dtype=bool)
        np.put_along_axis(mask_BN, order_BN[:, : self._masked(height * width)], True, axis=1)
        return (torch.from_numpy(mask_BN).reshape(len(mask_BN), height, width),)

    def training_loss(self, network: nn.Module, batch: Batch, batch_seed: int) -> Tensor:
        images, mask = batch[0], batch[3]
        return masked_loss(network(images, mask), self.target(images), mask)

    def evaluation_output(self, network: nn.Module, batch: Batch) -> Tensor:
        """Returns the reconstructed targets (B, channels, H, W) in float32."""
        output: Tensor = network(batch[0], batch[3])
        return output.float()

    def target(self, images_BCHW: Tensor) -> Tensor:
        """Returns what is to be reconstructed of images, (B, channels, H, W) in float32."""
        if self.norm_target_size is None:
            return images_BCHW.float()
        mean, deviation = local_statistics(images_BCHW.float(), self.norm_target_size)
        return (images_BCHW.float() - mean) / deviation

    def metrics(self) -> "MaskedLoss":
        return MaskedLoss(self)

    def image_grids(self, arrays: Mapping[str, np.ndarray]) -> Sequence[ImageGrid]:
        """Returns originals, the same with masked cells in the mean colour, and with reconstructed ones."""
        return [ImageGrid("reconstruction", arrays["shown"], ("original", "masked", "reconstructed"))]

    def shown(self, images_BCHW: Tensor, mask_Bhw: Tensor, output_BCHW: Tensor) -> Tensor:
        """Returns images to look at, (B, 3, channels, H, W): original, masked, and with masked cells as reconstructed."""
        images_BCHW = images_BCHW.float()
        if self.norm_target_size is not None:  # With the colours that the normalisation has removed.
            mean, deviation = local_statistics(images_BCHW, self.norm_target_size)
            output_BCHW = output_BCHW * deviation + mean
        mask_B1HW = enlarged(mask_Bhw, (images_BCHW.shape[2], images_BCHW.shape[3]))[:, None]
        masked, reconstructed = images_BCHW.where(~mask_B1HW, 0.0), images_BCHW.where(~mask_B1HW, output_BCHW)
        return torch.stack([images_BCHW, masked, reconstructed], dim=1)


def masked_loss(output_BCHW: Tensor, target_BCHW: Tensor, mask_Bhw: Tensor) -> Tensor:
    """Returns the mean absolute difference of masked pixels, a scalar: sum(|x - y| m) / (sum(m) + 1e-5) / channels.

    Args:
        output_BCHW: reconstructed targets.
        target_BCHW: targets in float32.
        mask_Bhw: (B, h, w) of bool, the same number of true cells in every image.
    """
    return loss_per_image(output_BCHW, target_BCHW, mask_Bhw).mean()


def loss_per_image(output_BCHW: Tensor, target_BCHW: Tensor, mask_Bhw: Tensor) -> Tensor:
    """Returns the loss of each image, (B,); their mean is that of the batch, because equally many pixels are masked in each."""
    channels, size = target_BCHW.shape[1], (target_BCHW.shape[2], target_BCHW.shape[3])
    mask_BHW = enlarged(mask_Bhw, size).to(target_BCHW.dtype)
    differences_B = ((target_BCHW - output_BCHW).abs() * mask_BHW[:, None]).sum(dim=(1, 2, 3))
    return differences_B / (mask_BHW.sum(dim=(1, 2)) + 1e-5) / channels


def local_statistics(images_BCHW: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation around each pixel, (B, channels, H, W) each; pixels outside do not count.

    The variance is that of a sample, n / (n - 1) times the mean square of deviations, plus 1e-6. Rows and columns are averaged
    one after the other, which takes 2 * side instead of side^2 additions.

    Args:
        images_BCHW: images in float32.
        side: side of the square in pixels, odd.
    """
    mean = _local_mean(images_BCHW, side)
    variance = _local_mean(images_BCHW**2, side) - mean**2
    height, width = images_BCHW.shape[2:]
    rows, columns = (_pixels_inside(length, side).to(images_BCHW.device) for length in (height, width))
    count_HW = rows[:, None] * columns
    variance = (variance * (count_HW / (count_HW - 1))).clamp(min=0)
    return mean, (variance + 1e-6).sqrt()


def _local_mean(x_BCHW: Tensor, side: int) -> Tensor:
    for kernel, padding in (((side, 1), (side // 2, 0)), ((1, side), (0, side // 2))):
        x_BCHW = F.avg_pool2d(x_BCHW, kernel, stride=1, padding=padding, count_include_pad=False)
    return x_BCHW


def _pixels_inside(length: int, side: int) -> Tensor:
    """Returns how many of `side` pixels around each of `length` pixels are inside, (length,) of float32."""
    at = torch.arange(length)
    return ((at + side // 2).clamp(max=length - 1) - (at - side // 2).clamp(min=0) + 1).float()


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


class MaskedLoss(Metric):
    """Mean of the masked loss over images, and some of the images that the first process has evaluated.

    Args:
        task: computes targets, and images to look at.
    """

    loss_sum: Tensor
    images: Tensor

    def __init__(self, task: SimMIM) -> None:
        super().__init__()
        self.task = task
        self.shown: list[Tensor] = []
        self.add_state("loss_sum", torch.tensor(0, dtype=SUM_DTYPE), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, output: Tensor, batch: Batch) -> None:
        """Counts a batch.

        Args:
            output: reconstructed targets (B, channels, H, W).
            batch: images, labels, indices and masks.
        """
        images, mask = batch[0], batch[3]
        self.loss_sum += loss_per_image(output, self.task.target(images), mask).to(SUM_DTYPE).sum()
        self.images += len(images)
        if (missing := SHOWN_IMAGES - sum(map(len, self.shown))) > 0:
            self.shown.append(self.task.shown(images[:missing], mask[:missing], output[:missing]))

    def compute(self) -> dict[str, Tensor]:
        """Returns the number of images, the loss, and the images to look at, (N, 3, channels, H, W)."""
        shown = {"shown": torch.cat(self.shown)} if self.shown else {}
        return {"loss": (self.loss_sum / self.images).float(), "images": self.images, **shown}
