"""The interface between the training engine and a task, and the plain data that they exchange."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from torch import Tensor, nn
from torchmetrics import Metric

Batch = tuple[Tensor, ...]
"""Images (B, channels, height, width), labels (B,), indices (B,) of the images in their set, and what the task draws.

If images have several labels, the labels are (B, classes) of uint8, 0 or 1."""


class RandomNumbers(Protocol):
    """Draws numbers for each image of a batch; those of an image depend on (seed, epoch, image, copy) alone."""

    def uniform(self) -> np.ndarray:
        """Returns the next number of each image from 0 to 1, without 1, (B,) of float64."""


@dataclass(frozen=True, kw_only=True)
class DataDescription:
    """Describes the data to a task."""

    class_names: tuple[str, ...]
    several_labels: bool | None = None
    """Whether labels are (N, classes) of 0 and 1 instead of class indices (N,). If None, there is no data, only classes."""
    train_shares: tuple[float, ...] | None = None
    """Fraction of the training images that have each class. If None, nothing is trained."""
    num_val_images: int = 0
    val_image_name: Callable[[int], str] = str
    """Returns the name of a validation image, its path if it has one."""


@dataclass(frozen=True)
class Monitor:
    """Names the metric that decides which checkpoint is the best one."""

    metric: str
    mode: Literal["min", "max"]


@dataclass(frozen=True)
class MetricFormat:
    """Describes how a metric is printed."""

    label: str
    percent: bool = False
    in_epoch_line: bool = False
    """Whether the line that is printed after every epoch shows it."""

    def text(self, value: float) -> str:
        """Returns label and value for a line of text."""
        return f"{self.label} {value:.2%}" if self.percent else f"{self.label} {value:.4f}"


@dataclass(frozen=True)
class ResultTable:
    """Contains a table of an evaluation's results, of which the first rows are printed."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Heatmap:
    """Contains a matrix of counts, plotted with every row scaled to a sum of 1."""

    file_name: str
    counts: np.ndarray
    """(N, N), [row, column]."""
    names: Sequence[str]
    row_label: str
    column_label: str
    title: str


@dataclass(frozen=True)
class ShownImage:
    """Names an image of an evaluation that people are to look at."""

    index: int
    """Position in the validation set."""
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Contains images of an evaluation that belong together."""

    title: str
    images: Sequence[ShownImage]


@dataclass(frozen=True)
class ImageGrid:
    """Contains images in rows and columns, such as original and reconstructed ones."""

    name: str
    images: np.ndarray
    """(rows, columns, channels, H, W) of float32, normalised as the network sees them."""
    column_labels: Sequence[str]


@dataclass(frozen=True)
class Presentation:
    """Describes how the results of an evaluation are presented, besides its metrics."""

    tables: Sequence[ResultTable] = ()
    heatmaps: Sequence[Heatmap] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    """Plain Python that is added to results.json."""


class Task(ABC):
    """Defines the network around the model, the loss of a batch, the metrics, and the presentation of results.

    A task is complete when it is constructed, contains no weights that are trained, and knows nothing of the training loop.
    """

    monitor: ClassVar[Monitor]
    metric_formats: ClassVar[Mapping[str, MetricFormat]]
    """Every metric by name, in the order in which metrics are printed."""
    outputs_are_classes: ClassVar[bool] = False
    """Whether every output of the model belongs to a class of the data, so that a head can be transferred by class names."""

    @abstractmethod
    def model_arguments(self) -> dict[str, Any]:
        """Returns the arguments that the model gets from the task, such as `num_classes`."""

    def build_network(self, model: nn.Module) -> nn.Module:
        """Returns the network that is trained: the model itself, unless the task adds to it."""
        return model

    def draw(self, numbers: RandomNumbers, img_size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Returns what follows the indices in a batch, one row per image each, such as masks: nothing, unless it is overridden.

        It runs where batches are loaded, on the CPU.

        Args:
            numbers: random numbers of the images.
            img_size: height and width of the images in pixels.
        """
        return ()

    def start_lines(self) -> Sequence[tuple[str, str]]:
        """Returns what a training logs of its task at the start, as (label, text): nothing, unless it is overridden."""
        return ()

    @abstractmethod
    def training_loss(self, network: nn.Module, batch: Batch, batch_seed: int) -> Tensor:
        """Returns the loss of a training batch, a scalar.

        Args:
            network: what `build_network` has returned, in training mode.
            batch: images, labels, indices and what `draw` returns, on the device; the images may be written to.
            batch_seed: seed of all random numbers, so that the same batch of the same epoch has the same loss in every run.
        """

    def model_inputs(self, batch: Batch, batch_seed: int) -> Tensor:
        """Returns the images (B, channels, H, W) that the network sees of a training batch, which is not changed."""
        return batch[0]

    @abstractmethod
    def evaluation_output(self, network: nn.Module, batch: Batch) -> Tensor:
        """Returns the output of the network on an evaluation batch, for the metrics."""

    @abstractmethod
    def metrics(self) -> Metric:
        """Returns new metrics, which add up over batches and processes.

        `update(output, batch)` takes the output of `evaluation_output`. `compute()` returns a dict of tensors: `images`, the
        number of images; a scalar for each name of `metric_formats`; and any number of arrays for `present`.
        """

    def judge_initial_weights(self, metrics: Mapping[str, float], num_images: int) -> str | None:
        """Returns a warning if the metrics of loaded weights before the first update are near chance.

        Args:
            metrics: metric -> value.
            num_images: number of images on which they were measured.
        """
        return None

    def image_grids(self, arrays: Mapping[str, np.ndarray]) -> Sequence[ImageGrid]:
        """Returns images of an evaluation, from the arrays among its metrics; a training shows them after every evaluation."""
        return ()

    def predictions(self, output: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Returns what is recorded for each image of an evaluation batch; nothing, unless the task overrides it.

        Args:
            output: what `evaluation_output` has returned.
            batch: images, labels and indices.

        Returns:
            Column -> (B,) or (B, K) on any device; `index` has the indices of the images.
        """
        return {}

    def confidences(self, predictions: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the probabilities (N,) of the predictions and whether they are right (N,), which tell their calibration.

        Args:
            predictions: the columns of `predictions`, of all images of an evaluation.

        Returns:
            Both arrays. If None, as for tasks that do not override it, the task predicts no probabilities.
        """
        return None

    def intervals(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, tuple[float, float]]:
        """Returns lower and upper bounds (95 %) of metrics on other images of the same kind; of some metrics, or of none.

        Args:
            predictions: the columns of `predictions`, of all images of an evaluation.
        """
        return {}

    def galleries(self, predictions: Mapping[str, np.ndarray], limit: int) -> Mapping[str, Gallery]:
        """Returns images that are worth a look, by a name for dashboards and files.

        Args:
            predictions: the columns of `predictions`, of all images in the order of the set.
            limit: number of images of each name at most.
        """
        return {}

    def computed_arguments(self) -> Mapping[str, Any]:
        """Returns arguments that the task has computed of the training images, as plain Python.

        Checkpoints contain them in place of those that were given, because they are read where these images are not.
        """
        return {}

    def metadata_of(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Returns what an evaluation adds to the metadata of later checkpoints: fields of `Metadata`, as plain Python.

        Args:
            arrays: those among the computed metrics, of the weights whose metric is monitored; none before an evaluation.
        """
        return {}

    def present(self, arrays: Mapping[str, np.ndarray]) -> Presentation:
        """Returns how the arrays among the computed metrics are shown."""
        return Presentation()
