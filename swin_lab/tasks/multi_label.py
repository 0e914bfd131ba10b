"""Classification with several labels per image: binary losses, mean average precision, and thresholds for each class.

1. Asymmetric Loss for Multi-Label Classification, Ridnik et al. 2021 (arXiv 2009.14119).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.metadata import Threshold
from swin_lab.tasks.classification import checked_logits, evaluated_logits, in_fp32
from swin_lab.tasks.galleries import mistakes_and_predictions
from swin_lab.tasks.mixing import Mixer
from swin_lab.tasks.multi_label_metrics import HALF, PER_CLASS, MultiLabelMetrics
from swin_lab.training import (
    Batch,
    DataDescription,
    Gallery,
    MetricFormat,
    Monitor,
    Presentation,
    ResultTable,
    ShownImage,
    Task,
)
from swin_lab.validation import Expected, Fraction, check_fields

Gamma = Annotated[float, Ge(0), Le(100)]
Margin = Annotated[float, Ge(0), Lt(1)]
Weight = Annotated[float, Gt(0), Le(1e6)]

ClassWeights = Annotated[
    Literal["balanced"] | tuple[Weight, ...] | None, Expected("null, balanced, or a list with a positive number for each class")
]
Thresholds = Annotated[tuple[Threshold, ...] | None, Expected("null, or a list with a probability from 0 to 1 for each class")]


@dataclass(frozen=True, kw_only=True)
class MultiLabelClassification(Task):
    """Learns which of the data's classes an image has: any number of them.

    The loss is the mean over images and classes. Evaluations report the binary cross-entropy without weights and smoothing,
    whatever is trained, so that runs can be compared.

    Args:
        data: classes, their frequencies, and validation images.
        loss: `bce`, the binary cross-entropy, or `asymmetric` (reference 1).
        gamma_negative: exponent of the asymmetric loss for labels that an image does not have.
        gamma_positive: exponent of the asymmetric loss for labels that it has.
        margin: of the asymmetric loss; probabilities of labels that an image does not have are lowered by it, 0 at least.
        class_weights: (C,) factors of the loss of labels that an image has; `balanced` is the number of training images without
            the label by that of images with it. If None, all are 1.
        label_smoothing: fraction by which the targets 0 and 1 approach 0.5, in the training loss only.
        mixing: how images and labels of a training batch are mixed. If None, they are not mixed.
        flip: whether an evaluation averages the logits of an image and of its mirror image.
        thresholds: (C,) probabilities above which an image has a label. If None, an evaluation chooses those of the best F1,
            which checkpoints then contain.

    Raises:
        UserError: a value is invalid, the data has one class per image, or weights cannot be computed from it.
    """

    outputs_are_classes: ClassVar[bool] = True
    monitor: ClassVar[Monitor] = Monitor("map", "max")
    metric_formats: ClassVar[Mapping[str, MetricFormat]] = {
        "map": MetricFormat("mAP", percent=True, in_epoch_line=True),
        "f1": MetricFormat("F1 at 0.5", percent=True),
        "f1_tuned": MetricFormat("F1 at thresholds", percent=True),
        "loss": MetricFormat("loss", in_epoch_line=True),
    }

    data: DataDescription
    loss: Literal["bce", "asymmetric"] = "bce"
    gamma_negative: Gamma = 4.0
    gamma_positive: Gamma = 0.0
    margin: Margin = 0.05
    class_weights: ClassWeights = None
    label_smoothing: Fraction = 0.0
    mixing: Mixer | None = None
    flip: bool = False
    thresholds: Thresholds = None

    def __post_init__(self) -> None:
        check_fields(self, "task.")
        if self.data.several_labels is False:
            raise UserError(
                "task=multilabel needs data with several labels per image, and this data has one class per image\n"
                "Choose data=multilabel and a file of targets, or data=parquet and data.label_column=NAME of a list column, or "
                "task=classification"
            )
        for name in ("gamma_negative", "gamma_positive"):
            if 0 < (gamma := getattr(self, name)) < 1:
                raise UserError(f"task.{name}={gamma} must be 0, or 1 and more: between them, gradients are infinite")
        for name in ("gamma_negative", "gamma_positive", "margin"):
            if self.loss == "bce" and (value := getattr(self, name)) != getattr(type(self), name):
                raise UserError(f"task.{name}={value} has no effect on task.loss=bce; add task.loss=asymmetric")
        for name in ("class_weights", "thresholds"):
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) != self.num_classes:
                raise UserError(
                    f"task.{name} has {len(values)} numbers, and the data {self.num_classes} classes; give one each"
                )
        _ = self._positive_weights  # Data without some label is refused at construction.

    @property
    def num_classes(self) -> int:
        """Returns the number of classes."""
        return len(self.data.class_names)

    @cached_property
    def _positive_weights(self) -> Tensor | None:
        """Returns the factors (C,) of the loss of labels that images have; None without such, and where nothing is trained."""
        if self.class_weights is None or isinstance(self.class_weights, tuple):
            return None if self.class_weights is None else torch.tensor(self.class_weights)
        if (shares := self.data.train_shares) is None:
            return None
        for name, share in zip(self.data.class_names, shares, strict=True):
            if share in (0, 1):
                how_many = "every" if share else "no"
                raise UserError(f"task.class_weights=balanced: {how_many} training image has the label {name!r}; give numbers")
        return torch.tensor([(1 - share) / share for share in shares])

    def computed_arguments(self) -> dict[str, Any]:
        if not isinstance(self.class_weights, str) or self._positive_weights is None:
            return {}
        return {"class_weights": self._positive_weights.tolist()}

    def model_arguments(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}

    def training_loss(self, network: nn.Module, batch: Batch, batch_seed: int) -> Tensor:
        images, targets = self._mixed(batch[0], batch[1], batch_seed)
        logits = in_fp32(checked_logits(network, images, self.num_classes))
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = self._positive_weights.to(logits.device) if self._positive_weights is not None else None
        if weights is None and self.class_weights is not None:
            raise UserError("task.class_weights=balanced needs training images, and there are none; give numbers")
        if self.loss == "bce":
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        gammas = self.gamma_negative, self.gamma_positive
        return asymmetric_loss(logits, targets, *gammas, self.margin, weights)

    def model_inputs(self, batch: Batch, batch_seed: int) -> Tensor:
        return self._mixed(batch[0].clone(), batch[1], batch_seed)[0]

    def _mixed(self, images: Tensor, labels_BC: Tensor, batch_seed: int) -> tuple[Tensor, Tensor]:
        """Returns images and targets (B, C) in float32, mixed if that is wanted."""
        targets_BC = labels_BC.float()
        if self.mixing is None:
            return images, targets_BC
        # Every image is a class of its own here, so that the targets of the mixer are the shares of the images.
        count = len(images)
        images, shares_BB = self.mixing.mix(images, torch.arange(count, device=images.device), count, 0.0, batch_seed)
        with torch.autocast(images.device.type, enabled=False):  # It would round the targets to half precision.
            return images, shares_BB.float() @ targets_BC

    def evaluation_output(self, network: nn.Module, batch: Batch) -> Tensor:
        """Returns logits (B, C) in float32."""
        return evaluated_logits(network, batch[0], self.num_classes, flip=self.flip)

    def metrics(self) -> MultiLabelMetrics:
        return MultiLabelMetrics(self.num_classes, self.thresholds)

    def metadata_of(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Returns the thresholds, 0.5 before an evaluation."""
        if "per_class" in arrays:
            return {"thresholds": by_name(arrays)["thresholds"].tolist()}
        return {"thresholds": list(self.thresholds or [HALF] * self.num_classes)}

    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns index (B,), labels (B, C) of 0 and 1, and the probabilities of all classes (B, C)."""
        return {"index": batch[2], "labels": batch[1], "probabilities": output.sigmoid()}

    def galleries(self, predictions: Mapping[str, np.ndarray], limit: int) -> dict[str, Gallery]:
        """Returns images whose labels have the highest loss, and images that are spread evenly over the set."""
        count = len(predictions.get("index", ()))
        if not count:
            return {}
        labels, probabilities = predictions["labels"], predictions["probabilities"]
        wrong = np.abs(labels - probabilities).max(axis=1)
        mistakes = np.argsort(-wrong, kind="stable")[: int((wrong > 0.5).sum())]
        return mistakes_and_predictions(mistakes, count, limit, "+ found, - missed", partial(self._shown, predictions))

    def _shown(self, predictions: Mapping[str, np.ndarray], row: int) -> ShownImage:
        labels, probabilities = predictions["labels"][row], predictions["probabilities"][row]
        c = int(np.abs(labels - probabilities).argmax())
        sign = "" if (probabilities[c] > 0.5) == bool(labels[c]) else "-" if labels[c] else "+"
        return ShownImage(int(predictions["index"][row]), f"{sign}{self.data.class_names[c]} {probabilities[c]:.0%}")

    def present(self, arrays: Mapping[str, np.ndarray]) -> Presentation:
        if "per_class" not in arrays:
            return Presentation()
        rows = per_class(self.data.class_names, arrays)
        positives = by_name(arrays)["positives"]
        absent = [name for name, count in zip(self.data.class_names, positives, strict=True) if not count]
        title = "Average precision per class, worst first"
        if absent:
            shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
            title += f"; left out, as no image has it: {shown}"
        cells = [
            [
                row["class"],
                str(row["images"]),
                *(f"{row[name]:.2%}" for name in ("ap", "f1", "f1_tuned")),
                f"{row['threshold']:.3f}",
            ]
            for row in rows
        ]
        columns = ["class", "images", "average precision", "F1 at 0.5", "F1 at threshold", "threshold"]
        record = {"per_class": rows, "classes_without_images": absent}
        return Presentation([ResultTable(title, columns, cells)], record=record)


def asymmetric_loss(
    logits_BC: Tensor,
    targets_BC: Tensor,
    gamma_negative: float,
    gamma_positive: float,
    margin: float,
    weights_C: Tensor | None = None,
) -> Tensor:
    """Returns the asymmetric loss (reference 1, equations 2, 5 and 7), the mean over images and classes, a scalar.

    -y w (1 - p)^gamma_positive log(p) - (1 - y) p_m^gamma_negative log(1 - p_m), with p_m = max(p - margin, 0).

    Args:
        logits_BC: logits in float32.
        targets_BC: targets from 0 to 1.
        gamma_negative: exponent for absent labels.
        gamma_positive: exponent for present labels.
        margin: shift of the probabilities of absent labels.
        weights_C: (C,) factors w of the loss of present labels. If None, 1.
    """
    p_BC = logits_BC.sigmoid()
    shifted_BC = (p_BC - margin).clamp(min=0)
    present_BC = (1 - p_BC) ** gamma_positive * F.logsigmoid(logits_BC)
    # 1 - p is the sigmoid of the negative logit; a difference would lose all digits near p = 1.
    log_absent_BC = ((-logits_BC).sigmoid() + margin).clamp(max=1).log() if margin > 0 else F.logsigmoid(-logits_BC)
    absent_BC = shifted_BC**gamma_negative * log_absent_BC
    if weights_C is not None:
        present_BC = present_BC * weights_C
    return -(targets_BC * present_BC + (1 - targets_BC) * absent_BC).mean()


def by_name(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the rows of `per_class`, (C,) each, under the names in PER_CLASS."""
    return dict(zip(PER_CLASS, arrays["per_class"], strict=True))


def per_class(class_names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Returns images, average precision, F1 and threshold of every class that has images, the lowest precision first."""
    names = {"images": "positives", "ap": "ap", "f1": "f1_half", "f1_tuned": "f1_at_threshold", "threshold": "thresholds"}
    found = by_name(arrays)
    columns = {name: found[source].tolist() for name, source in names.items()}
    columns["images"] = [int(count) for count in columns["images"]]
    rows = [{"class": name} | {key: columns[key][c] for key in names} for c, name in enumerate(class_names)]
    return sorted((row for row in rows if row["images"]), key=lambda row: row["ap"])
