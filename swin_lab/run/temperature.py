"""Temperature scaling (Guo et al. 2017, arXiv 1706.04599): logits are divided by the number that gives the lowest loss."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, isfinite, log

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.metadata import MAX_TEMPERATURE, MIN_TEMPERATURE, FittedTemperature
from swin_lab.report.calibration import Reliability, reliability
from swin_lab.training import PredictionCollector
from swin_lab.weights import Contents

ROWS = 4096
"""Rows of logits that are computed in double precision at once."""


@dataclass(frozen=True)
class Calibration:
    """Contains what a temperature changes on the images of an evaluation."""

    temperature: float
    same_images: bool
    """Whether it was fitted on these images."""
    without: Reliability
    with_it: Reliability
    loss_without: float
    loss_with: float


def stored_temperature(contents: Contents) -> FittedTemperature | None:
    """Returns the temperature of a checkpoint, if it has one."""
    return contents.metadata.calibration if contents.metadata is not None else None


def judged(collector: PredictionCollector, contents: Contents, fingerprint: str, *, fit: bool) -> Calibration | None:
    """Returns what a temperature changes on the images of an evaluation; None if no outputs of the network were kept.

    Args:
        collector: has the outputs and the labels.
        contents: the checkpoint, which may have a temperature.
        fingerprint: of the images.
        fit: whether a temperature is fitted to these images; else the stored one is judged.

    Raises:
        UserError: the images determine no temperature.
    """
    if collector.outputs is None or "label" not in collector.columns:
        return None
    stored = stored_temperature(contents)
    same_images = fit or (stored is not None and stored.images == fingerprint)
    own = 1.0 if stored is None else stored.temperature
    return judge(collector.outputs, collector.columns["label"], own, fit=fit, same_images=same_images)


def judge(logits: np.ndarray, labels: np.ndarray, own: float, *, fit: bool, same_images: bool) -> Calibration:
    """Compares the probabilities of an evaluation without and with a temperature.

    Args:
        logits: (N, classes), of the network as it was evaluated.
        labels: (N,) true classes.
        own: the temperature that the logits have been divided by.
        fit: whether a temperature is fitted to these images; else the own one is judged.
        same_images: whether it is fitted on these images, or was.

    Raises:
        UserError: the images determine no temperature.
    """
    targets = torch.from_numpy(labels).long()
    outputs = torch.from_numpy(logits)
    relative = _fitted(lambda t: _scaled(outputs, targets, t)[1]) if fit else 1.0
    correct = (outputs.argmax(dim=1) == targets).numpy()
    (before, loss_before), (after, loss_after) = (_scaled(outputs, targets, t) for t in (1 / own, relative))
    return Calibration(
        own * relative, same_images, reliability(before, correct), reliability(after, correct), loss_before, loss_after
    )


def _fitted(loss: Callable[[float], float]) -> float:
    """Returns the temperature with the lowest loss, which is convex in its inverse and thus has one minimum."""
    low, high = log(MIN_TEMPERATURE), log(MAX_TEMPERATURE)
    found = minimize_scalar(lambda t: loss(exp(t)), bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    if not isfinite(found.fun) or min(found.x - low, high - found.x) < 1e-2:
        raise UserError(
            f"calibrate: no temperature from {MIN_TEMPERATURE} to {MAX_TEMPERATURE:.0f} fits these images best, as if all were "
            "right, or almost all wrong; nothing was written. Use other or more images"
        )
    return exp(float(found.x))


def _scaled(logits: Tensor, labels: Tensor, temperature: float) -> tuple[np.ndarray, float]:
    """Returns the probabilities (N,) of the predicted classes and the mean loss of logits divided by a temperature."""
    confidence, losses = [], []
    for rows, targets in zip(logits.split(ROWS), labels.split(ROWS), strict=True):
        log_probabilities = (rows.double() / temperature).log_softmax(dim=1)
        confidence.append(log_probabilities.max(dim=1).values.exp())
        losses.append(-log_probabilities.gather(1, targets[:, None])[:, 0])
    return torch.cat(confidence).numpy(), float(torch.cat(losses).mean())
