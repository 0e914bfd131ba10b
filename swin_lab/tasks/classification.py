"""Image classification: cross-entropy, top-1 and top-5 accuracy, and results per class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.intervals import CONFIDENCE, interval_of_mean, wilson_interval
from swin_lab.tasks.galleries import mistakes_and_predictions
from swin_lab.tasks.metrics import ClassificationMetrics
from swin_lab.tasks.mixing import Mixer
from swin_lab.tasks.reassessed import reassessed_labels
from swin_lab.training import (
    Batch,
    DataDescription,
    Gallery,
    Heatmap,
    MetricFormat,
    Monitor,
    Presentation,
    ResultTable,
    ShownImage,
    Task,
)
from swin_lab.validation import Fraction, check_fields

TOP = 5
"""Number of classes that are recorded for each image."""
MAX_CONFUSIONS = 100
"""Number of confusions that are listed at most."""

NEAR_CHANCE = 0.1
"""Part of the way from chance to certainty that weights which know the classes are expected to have gone."""
SIGNIFICANCE = 0.01
"""Probability below which an accuracy is taken for evidence that the weights do not know the classes."""


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Learns to assign one of the data's classes to every image.

    Args:
        data: classes and validation images.
        label_smoothing: fraction of the target that is spread over all classes, in the training loss only.
        mixing: how images and labels of a training batch are mixed. If None, they are not mixed.
        flip: whether an evaluation averages the logits of an image and of its mirror image.
        real_labels: whether an evaluation on ImageNet-1k also counts the reassessed labels (ReaL, arXiv 2006.07159).

    Raises:
        UserError: a value is invalid, or the data has fewer than two classes or no ReaL labels.
    """

    outputs_are_classes: ClassVar[bool] = True
    monitor: ClassVar[Monitor] = Monitor("acc1", "max")
    metric_formats: ClassVar[Mapping[str, MetricFormat]] = {
        "acc1": MetricFormat("top-1", percent=True, in_epoch_line=True),
        "acc5": MetricFormat("top-5", percent=True),
        "loss": MetricFormat("loss", in_epoch_line=True),
        "real_acc1": MetricFormat("ReaL top-1", percent=True),
        "real_acc5": MetricFormat("ReaL top-5", percent=True),
    }

    data: DataDescription
    label_smoothing: Fraction = 0.0
    mixing: Mixer | None = None
    flip: bool = False
    real_labels: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "task.")
        if self.data.several_labels:
            raise UserError("the data has several labels per image, and task=classification learns one; choose task=multilabel")
        if self.num_classes < 2:
            raise UserError(f"the data has {self.num_classes} class; classification needs images of two or more")
        _ = self._reassessed_labels  # Data without ReaL labels is refused at construction.

    @property
    def num_classes(self) -> int:
        """Returns the number of classes."""
        return len(self.data.class_names)

    @cached_property
    def _reassessed_labels(self) -> Tensor | None:
        return reassessed_labels(self.data) if self.real_labels else None

    def model_arguments(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}

    def training_loss(self, network: nn.Module, batch: Batch, batch_seed: int) -> Tensor:
        images, targets = self.mixed(batch, batch_seed)
        return self.cross_entropy(self.logits(network, images), targets)

    def mixed(self, batch: Batch, batch_seed: int) -> tuple[Tensor, Tensor]:
        """Returns the images that the network sees, and labels (B,), or targets (B, num_classes) of mixed images."""
        images, labels = batch[:2]
        if self.mixing is None:
            return images, labels
        return self.mixing.mix(images, labels, self.num_classes, self.label_smoothing, batch_seed)

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy of logits (B, num_classes) with what `mixed` returns; targets are smoothed already."""
        smoothing = self.label_smoothing if self.mixing is None else 0.0
        return F.cross_entropy(in_fp32(logits), targets, label_smoothing=smoothing)

    def evaluation_output(self, network: nn.Module, batch: Batch) -> Tensor:
        """Returns logits (B, num_classes) in float32."""
        return evaluated_logits(network, batch[0], self.num_classes, flip=self.flip)

    def model_inputs(self, batch: Batch, batch_seed: int) -> Tensor:
        return self.mixed((batch[0].clone(), *batch[1:]), batch_seed)[0]

    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns index and label (B,), the classes (B, 5) with the highest probabilities, and the label's probability (B,)."""
        labels, indices = batch[1:3]
        probabilities = output.softmax(dim=1)
        # The first of equal logits, as in the argmax of the accuracy; topk chooses by how many are requested.
        classes = output.sort(dim=1, descending=True, stable=True).indices[:, :TOP]
        return {
            "index": indices,
            "label": labels.int(),
            "classes": classes.int(),
            "probabilities": probabilities.gather(1, classes),
            "label_probability": probabilities.gather(1, labels[:, None])[:, 0],
        }

    def confidences(self, predictions: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return predictions["probabilities"][:, 0].astype(np.float64), predictions["classes"][:, 0] == predictions["label"]

    def intervals(self, predictions: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
        if len(predictions.get("index", ())) < 2:
            return {}
        right = predictions["classes"] == predictions["label"][:, None]  # (N, 5)
        correct = {"acc1": right[:, 0], "acc5": right.any(axis=1)}
        losses = -np.log(np.maximum(predictions["label_probability"], np.finfo(np.float32).tiny).astype(np.float64))
        found = {name: wilson_interval(int(values.sum()), len(values)) for name, values in correct.items()}
        return found | {"loss": interval_of_mean(losses)}

    def galleries(self, predictions: Mapping[str, np.ndarray], limit: int) -> dict[str, Gallery]:
        """Returns the most confident mistakes, and images that are spread evenly over the set."""
        if not len(predictions.get("index", ())):
            return {}
        wrong = np.flatnonzero(predictions["classes"][:, 0] != predictions["label"])
        confident = wrong[np.argsort(-predictions["probabilities"][wrong, 0], kind="stable")]
        count, shown = len(predictions["index"]), partial(self._shown, predictions)
        return mistakes_and_predictions(confident, count, limit, "truth → prediction", shown)

    def _shown(self, predictions: Mapping[str, np.ndarray], row: int) -> ShownImage:
        names, truth, found = self.data.class_names, predictions["label"][row], predictions["classes"][row, 0]
        right = "" if truth == found else f"{names[truth]} → "
        caption = f"{right}{names[found]} {predictions['probabilities'][row, 0]:.0%}"
        return ShownImage(int(predictions["index"][row]), caption)

    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """Returns the logits of images (B, channels, H, W); raises UserError unless the network gives (B, num_classes)."""
        return checked_logits(network, images, self.num_classes)

    def metrics(self) -> ClassificationMetrics:
        return ClassificationMetrics(self.num_classes, self._reassessed_labels)

    def judge_initial_weights(self, metrics: Mapping[str, float], num_images: int) -> str | None:
        from scipy.stats import binom  # takes a second to import

        chance = 1 / self.num_classes
        expected = chance + NEAR_CHANCE * (1 - chance)
        correct = round(metrics["acc1"] * num_images)
        if binom.cdf(correct, num_images, expected) >= SIGNIFICANCE:  # A few images prove nothing.
            return None
        return (
            f"top-1 on {num_images:,} images is near chance ({chance:.2%}) for weights that should know these classes: "
            "compare the class order of data and weights, and mean, std and interpolation of the data"
        )

    def present(self, arrays: Mapping[str, np.ndarray]) -> Presentation:
        counts = arrays.get("confusion")
        if counts is None:
            return Presentation()
        names = self.data.class_names
        per_class, confusions = accuracy_per_class(names, counts), most_frequent_confusions(names, counts, MAX_CONFUSIONS)
        rows = [
            [row["class"], str(row["images"]), f"{row['accuracy']:.2%}", f"{row['low']:.1%} to {row['high']:.1%}"]
            for row in per_class
        ]
        columns = ["class", "images", "accuracy", f"{CONFIDENCE:.0%} interval"]
        tables = [ResultTable("Accuracy per class, worst first", columns, rows)]
        if confusions:
            rows = [[row["truth"], row["prediction"], str(row["count"]), f"{row['fraction']:.2%}"] for row in confusions]
            tables.append(ResultTable("Most frequent confusions", ["truth", "prediction", "images", "of the class"], rows))
        title = f"top-1 {np.trace(counts) / counts.sum():.2%}"
        heatmap = Heatmap("confusion.png", counts, names, "truth", "prediction", title)
        return Presentation(tables, [heatmap], {"per_class": per_class, "worst_confusions": confusions})


def checked_logits(network: nn.Module, images: Tensor, num_classes: int) -> Tensor:
    """Returns the logits of images (B, channels, H, W); raises UserError unless the network gives (B, num_classes)."""
    try:
        logits: Any = network(images)
    except ValueError as error:
        if "Expected more than 1 value per channel" in str(error):
            raise UserError(
                f"batch normalisation needs more than one value per channel, and {len(images)} image of "
                f"{images.shape[2]}x{images.shape[3]} pixels leaves one; use larger batches (global_batch, "
                "max_device_batch) or larger images"
            ) from error
        raise
    expected = (len(images), num_classes)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
        found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise UserError(
            f"the model ({type(network).__name__}) returns {found}; classification needs one tensor of logits {expected}, "
            "(images, classes)"
        )
    return logits


def evaluated_logits(network: nn.Module, images: Tensor, num_classes: int, *, flip: bool) -> Tensor:
    """Returns logits (B, num_classes) in float32, averaged over the images and their mirror images if `flip` is true."""
    logits = checked_logits(network, images, num_classes).float()
    return (logits + checked_logits(network, images.flip(-1), num_classes).float()) / 2 if flip else logits


def in_fp32(logits: Tensor) -> Tensor:
    """Returns logits in fp32 at least, as mixed precision has them for a cross-entropy; bf16-true and 16-true do not."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def accuracy_per_class(class_names: Sequence[str], counts: np.ndarray) -> list[dict[str, Any]]:
    """Returns class, number of images and accuracy of every class that has images, worst first.

    The ends of the interval are Wilson's.

    Args:
        class_names: one name per class.
        counts: (C, C) confusion matrix, [truth, prediction].
    """
    rows = []
    for name, correct, images in zip(class_names, np.diag(counts).tolist(), counts.sum(axis=1).tolist(), strict=True):
        if images:
            low, high = wilson_interval(correct, images)
            rows.append({"class": name, "images": images, "accuracy": correct / images, "low": low, "high": high})
    return sorted(rows, key=lambda row: row["accuracy"])


def most_frequent_confusions(class_names: Sequence[str], counts: np.ndarray, limit: int) -> list[dict[str, Any]]:
    """Returns truth, prediction, count, and fraction of the class's images, of the most frequent errors.

    Args:
        class_names: one name per class.
        counts: (C, C) confusion matrix, [truth, prediction].
        limit: maximum number of entries.
    """
    errors = counts - np.diag(np.diag(counts))
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(position), len(class_names)) for position in order]
    return [
        {
            "truth": class_names[i],
            "prediction": class_names[j],
            "count": int(errors[i, j]),
            "fraction": float(errors[i, j] / counts[i].sum()),
        }
        for i, j in pairs
        if errors[i, j]
    ]
