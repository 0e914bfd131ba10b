"""The results of an evaluation over all processes, and the names of metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from swin_lab.training.task import Task

VAL, VAL_EMA = "val", "val_ema"
"""Prefixes of the metrics of the trained weights, and of their moving average (EMA)."""

FINAL = {VAL: "final", VAL_EMA: "final_ema"}
"""Prefix of a metric -> the one under which an evaluation after the training is logged, which is no point of the curve."""


@dataclass(frozen=True)
class EvaluationResult:
    """Contains the results of an evaluation over all processes."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Full name, such as val/acc1 -> value."""
    num_images: int = 0
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name -> array, for the metrics that are arrays, of the weights whose metric is monitored."""
    epoch: int | None = None
    """Epoch after which the weights were evaluated, counted from 1. If None, they have not been trained in this run."""


def monitored_metric(task: Task, has_ema: bool) -> str:
    """Returns the full name of the metric that decides which checkpoint is the best: that of the EMA, if there is one."""
    return f"{VAL_EMA if has_ema else VAL}/{task.monitor.metric}"


def logged_metrics(task: Task, has_ema: bool) -> list[str]:
    """Returns the full names of all metrics that a training logs."""
    prefixes = [VAL, VAL_EMA] if has_ema else [VAL]
    evaluated = [f"{prefix}/{name}" for prefix in prefixes for name in task.metric_formats]
    return [*evaluated, "train/loss", "train/loss_epoch", "train/lr", "train/grad_norm"]
