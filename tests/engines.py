"""Engines for the classification of a few tensors, which tests of training and tasks share."""

from functools import partial

import torch

from swin_lab.tasks import Classification
from swin_lab.training import DataDescription, Engine, OptimizerConfig

TASK_SETTINGS = ("label_smoothing", "mixing", "flip", "real_labels")
ADAMW_SETTINGS = ("betas", "eps")


def adamw(**changes):
    """Builds AdamW with a learning rate that does not depend on the batch, and without weight decay, unless changed."""
    values = {"lr": 1e-2, "reference_batch": 1, "lr_scaling": "none", "weight_decay": 0.0} | changes
    settings = {key: values.pop(key) for key in ADAMW_SETTINGS if key in values}
    return OptimizerConfig(create=partial(torch.optim.AdamW, **settings), **values)


def classification_engine(network, classes, metadata=None, **options):
    """Builds an engine for a number of classes; `options` are those of the task and of the engine."""
    settings = {key: options.pop(key) for key in TASK_SETTINGS if key in options}
    data = DataDescription(class_names=tuple(map(str, range(classes))))
    return Engine(network, Classification(data=data, **settings), metadata or {}, **options)
