"""The training engine: LightningModule for any task, parameter groups, schedules, EMA and callbacks."""

from swin_lab.training.callbacks import DataTimeMonitor, EpochSummary, ProgressBar, ProgressLines
from swin_lab.training.checkpoint_io import BackgroundIO, WholeFileIO
from swin_lab.training.checkpointing import CheckpointConfig, LastCheckpoint
from swin_lab.training.ema import EmaConfig
from swin_lab.training.engine import Engine
from swin_lab.training.evaluation import FINAL, VAL, VAL_EMA, EvaluationResult
from swin_lab.training.freezing import Freezing
from swin_lab.training.nonfinite import NonFiniteConfig, NonFiniteError
from swin_lab.training.nonfinite_dump import NonFiniteDumps
from swin_lab.training.optim import OptimizerConfig
from swin_lab.training.position import Position
from swin_lab.training.predictions import Columns, PredictionCollector
from swin_lab.training.schedule import Constant, Cosine, Linear, MultiStep, RunLength, Schedule, Step
from swin_lab.training.task import (
    Batch,
    DataDescription,
    Gallery,
    Heatmap,
    ImageGrid,
    MetricFormat,
    Monitor,
    Presentation,
    RandomNumbers,
    ResultTable,
    ShownImage,
    Task,
)

__all__ = [
    "FINAL",
    "VAL",
    "VAL_EMA",
    "BackgroundIO",
    "Batch",
    "CheckpointConfig",
    "Columns",
    "Constant",
    "Cosine",
    "DataDescription",
    "DataTimeMonitor",
    "EmaConfig",
    "Engine",
    "EpochSummary",
    "EvaluationResult",
    "Freezing",
    "Gallery",
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
    "PredictionCollector",
    "Presentation",
    "ProgressBar",
    "ProgressLines",
    "RandomNumbers",
    "ResultTable",
    "RunLength",
    "Schedule",
    "ShownImage",
    "Step",
    "Task",
    "WholeFileIO",
]
