"""The training engine: LightningModule for any task, parameter groups, schedules, EMA and callbacks."""

from swin_lab.training.callbacks import DataTimeMonitor, EpochSummary, ProgressBar, ProgressLines
from swin_lab.training.checkpoint_io import BackgroundIO, WholeFileIO
from swin_lab.training.checkpointing import CheckpointConfig, LastCheckpoint
from swin_lab.training.ema import EmaConfig
from swin_lab.training.engine import Engine, EvaluationResult
from swin_lab.training.freezing import Freezing
from swin_lab.training.nonfinite import NonFiniteConfig, NonFiniteError
from swin_lab.training.nonfinite_dump import NonFiniteDumps
from swin_lab.training.optim import OptimizerConfig
from swin_lab.training.position import Position
from swin_lab.training.schedule import Constant, Cosine, Linear, MultiStep, RunLength, Schedule, Step
from swin_lab.training.task import (
    Batch,
    DataDescription,
    Heatmap,
    ImageGrid,
    MetricFormat,
    Monitor,
    Presentation,
    RandomNumbers,
    ResultTable,
    Task,
)

__all__ = [
    "BackgroundIO",
    "Batch",
    "CheckpointConfig",
    "Constant",
    "Cosine",
    "DataDescription",
    "DataTimeMonitor",
    "EmaConfig",
    "Engine",
    "EpochSummary",
    "EvaluationResult",
    "Freezing",
    "Heatmap",
    "ImageGrid",
    "LastCheckpoint",
    "Linear",
    "MetricFormat",
    "Monitor",
    "MultiStep",
    "NonFiniteConfig",
    "NonFiniteDumps",
    "NonFiniteError",
    "OptimizerConfig",
    "Position",
    "Presentation",
    "ProgressBar",
    "ProgressLines",
    "RandomNumbers",
    "ResultTable",
    "RunLength",
    "Schedule",
    "Step",
    "Task",
    "WholeFileIO",
]
