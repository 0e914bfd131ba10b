"""Distillation: a classifier learns from its labels and from a teacher, as in DeiT (arXiv 2012.12877), without its token.

The teacher sees the augmented and mixed images of the student. With a share a of the loss, temperature T and mean over images,

    soft: (1 - a) CE(student, target) + a T^2 KL(softmax(teacher / T), softmax(student / T))   (arXiv 1503.02531)
    hard: (1 - a) CE(student, target) + a CE(student, argmax teacher)

The authors' code divides the divergence by the number of classes as well; this is the formula of the paper. Optionally the maps
of some stages are learned, too: the mean squared difference between the student's map after a linear adapter (arXiv 1412.6550)
and the teacher's, whose channels are normalised at every position (arXiv 2205.14141).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.metadata import Mapped
from swin_lab.models import SwinTransformer
from swin_lab.models.feature_model import FeatureModel
from swin_lab.tasks.classification import Classification, in_fp32
from swin_lab.tasks.teacher import Teacher
from swin_lab.training import Batch
from swin_lab.validation import Expected, NonNegativeFloat, NonNegativeInt, PositiveFloat, Probability, Text

SHARES = {"hard": 0.5, "soft": 0.1}
TEMPERATURE = 3.0
"""The published defaults."""

Source = Annotated[
    Text | Teacher, Expected("a weight file of any layout, a run directory, a folder, OWNER/NAME on the hub, or timm:NAME")
]


@dataclass(frozen=True, kw_only=True)
class Distillation(Classification):
    """Learns to classify from labels and from a teacher of the same classes; it is evaluated like any classifier.

    Args:
        teacher: where the teacher is, which only a training opens, or the opened teacher.
        teacher_transfer: how its weights are loaded, as `transfer` of conf/eval.yaml.
        teacher_trust: whether its checkpoint may ask for more than `swin_lab.run.allowed` lists.
        kind: whether the most probable class of the teacher is learned, or its probabilities.
        share: share of the teacher in the loss. If None, the published one, 0.5 for hard and 0.1 for soft.
        temperature: divisor of the logits for kind=soft. If None, the published one, 3.
        features: weight of the difference of maps, which is added to the loss.
        feature_stages: stages whose maps are compared, counted from 0. If None, all.

    Raises:
        UserError: a value is invalid or has no effect.
    """

    teacher: Source
    teacher_transfer: Mapped = field(default_factory=dict)
    teacher_trust: bool = False
    kind: Literal["hard", "soft"] = "hard"
    share: Probability | None = None
    temperature: PositiveFloat | None = None
    features: NonNegativeFloat = 0.0
    feature_stages: tuple[NonNegativeInt, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature is not None and self.kind == "hard":
            raise UserError(f"task.temperature={self.temperature} has no effect on task.kind=hard; choose task.kind=soft")
        if self.feature_stages is not None and not self.features:
            raise UserError(f"task.feature_stages={list(self.feature_stages)} has no effect with task.features=0; set a weight")

    @property
    def used_share(self) -> float:
        """Returns the share of the teacher in the loss."""
        return SHARES[self.kind] if self.share is None else self.share

    @property
    def used_temperature(self) -> float:
        """Returns the divisor of the logits."""
        return TEMPERATURE if self.temperature is None else self.temperature

    def with_features(self, teacher: nn.Module, student: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Returns both networks with what they need so that maps can be compared: themselves, if `features` is 0.

        Raises:
            UserError: one of the networks is no Swin Transformer, or has no such stage.
        """
        if not self.features:
            return teacher, student
        if not isinstance(teacher, SwinTransformer) or not isinstance(student, SwinTransformer):
            names = f"the teacher is a {type(teacher).__name__}, the student a {type(student).__name__}"
            raise UserError(f"task.features={self.features} compares maps of Swin Transformers; {names}")
        common = list(range(min(len(teacher.stages), len(student.stages))))
        stages = common if self.feature_stages is None else list(self.feature_stages)
        if not stages or stages != sorted(set(stages)) or stages[-1] not in common:
            raise UserError(f"task.feature_stages={stages} must be some of {common}, in increasing order")
        channels = [teacher.config.channels[stage] for stage in stages]
        return FeatureModel(teacher, stages), FeatureModel(student, stages, channels)

    def start_lines(self) -> Sequence[tuple[str, str]]:
        if isinstance(self.teacher, str):
            return ()
        kind = f"soft at temperature {self.used_temperature:g}" if self.kind == "soft" else "hard"
        maps = f", maps with weight {self.features:g}" if self.features else ""
        return [
            ("teacher", self.teacher.description),
            ("teaching", f"{kind}, share {self.used_share:g}{maps}; its images: {self.teacher.changes}"),
        ]

    def training_loss(self, network: nn.Module, batch: Batch, batch_seed: int) -> Tensor:
        images, targets = self.mixed(batch, batch_seed)
        taught, taught_maps = self._knowledge(images)  # All of it before the student's pass: CUDA graphs reuse their memory.
        logits, maps = self._pass(network, images)
        share = self.used_share
        loss = (1 - share) * self.cross_entropy(logits, targets) + share * self._imitation(in_fp32(logits), taught)
        if maps:
            loss = loss + self.features * torch.stack(list(map(map_difference, maps, taught_maps))).mean()
        return loss

    def _pass(self, network: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns logits (B, num_classes) of student or teacher, and the maps that are compared, if any."""
        if not self.features:
            return self.logits(network, images), []
        logits, maps = network(images, with_maps=True)
        return logits, maps

    def _knowledge(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns what is learned: classes (B,) or log probabilities (B, num_classes), and the normalised maps, if any."""
        assert isinstance(self.teacher, Teacher), "a training opens the teacher"
        logits, maps = self._pass(self.teacher, images)
        normalised = [F.layer_norm(in_fp32(x_BHWC), x_BHWC.shape[-1:]) for x_BHWC in maps]
        if self.kind == "hard":
            return logits.argmax(dim=1), normalised
        return (in_fp32(logits) / self.used_temperature).log_softmax(dim=1), normalised

    def _imitation(self, logits: Tensor, taught: Tensor) -> Tensor:
        """Returns the part of the loss that the teacher determines, from logits in fp32 and `_knowledge`."""
        if self.kind == "hard":
            return F.cross_entropy(logits, taught)
        temperature = self.used_temperature
        own = (logits / temperature).log_softmax(dim=1)
        return temperature**2 * F.kl_div(own, taught, reduction="batchmean", log_target=True)


def map_difference(map_BHWC: Tensor, taught_BHWC: Tensor) -> Tensor:
    """Returns the mean squared difference of two maps, a scalar; the taught one is resized to the size of the other."""
    size = map_BHWC.shape[1:3]
    if taught_BHWC.shape[1:3] != size:
        taught_BCHW = F.interpolate(taught_BHWC.permute(0, 3, 1, 2), size, mode="bilinear", antialias=True)
        taught_BHWC = taught_BCHW.permute(0, 2, 3, 1)
    return F.mse_loss(in_fp32(map_BHWC), taught_BHWC)
