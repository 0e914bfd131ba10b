"""What follows from the configuration of a run, its data and its devices."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from swin_lab.models import SwinTransformer, count_macs
from swin_lab.ops.window_attention import training_backend
from swin_lab.record import Derived
from swin_lab.run.identity import checkout, describe_data, hardware, versions
from swin_lab.run.recipe import run_length
from swin_lab.run.training import Training
from swin_lab.training import Engine, Task

DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}
"""First part of Lightning's name of a precision -> dtype of matrix products; float32 for all others."""


def constants_of(training: Training, values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the parts of a run's record that do not change.

    Args:
        training: the components of the run.
        values: the resolved configuration.
        overrides: as they were typed.
    """
    return {
        "overrides": list(overrides),
        "config": values,
        "derived": derive(training),
        "preprocessing": training.preprocessing.as_dict() | {"description": str(training.preprocessing)},
        "git": checkout(),
        "versions": versions(),
        "hardware": hardware(training.launch.trainer),
        "data": describe_data(training.data.source),
    }


def derive(training: Training) -> Derived:
    """Returns the values that follow from the configuration of a run."""
    network, batching, config = training.model.network, training.batching, training.config
    length = run_length(config.trainer, len(training.data.source.train.labels), batching)
    epochs = config.trainer["max_epochs"]
    return Derived(
        task=type(training.task).__name__,
        model=type(network).__name__,
        lr=training.initial_lr,
        global_batch=batching.global_batch,
        device_batch=batching.device_batch,
        accumulate=batching.accumulate,
        updates=None if length is None else length.total_steps,
        updates_per_epoch=None if length is None else length.steps_per_epoch,
        epochs=epochs if epochs > 0 else None,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        parameter_groups=len(training.optimization.optimizer.groups(network, batching.global_batch)),
        gmacs=count_macs(network.config) / 1e9 if isinstance(network, SwinTransformer) else None,
        img_size=training.model.img_size,
        precision=training.launch.precision,
        attention=attention_backend(training),
        **monitored_of(training.engine),
    )


def attention_backend(training: Training) -> str | None:
    """Returns the implementation of window attention that a run trains with, in the first stage if stages differ.

    None for networks without the choice.
    """
    network = training.model.network
    if not isinstance(network, SwinTransformer) or network.config.token_mixer == "mlp":
        return None
    config = network.config
    device = training.launch.trainer.strategy.root_device.type
    dtype = DTYPES.get(training.launch.precision.partition("-")[0], torch.float32)
    head_dim = config.channels[0] // config.num_heads[0]
    return training_backend(config.attention_backend, device, dtype, config.windows[0], head_dim)


def monitored_of(engine: Engine) -> dict[str, Any]:
    """Returns which metric of which weights decides which epoch is the best one."""
    monitor = engine.task.monitor
    return {
        "monitor": monitor.metric,
        "monitor_mode": monitor.mode,
        "monitor_weights": "raw" if engine.ema is None else "ema",
    }


def formats_of(task: Task, names: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns label and kind of the metrics of these names, in the order in which they are printed."""
    formats = task.metric_formats
    return {name: {"label": formats[name].label, "percent": formats[name].percent} for name in formats if name in names}
