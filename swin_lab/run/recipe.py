"""The values that follow from a configuration, and its differences from a published one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch

from swin_lab.data.sources.imagenet import CLASSES
from swin_lab.errors import UserError
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from swin_lab.run.batching import Batching, split_batch
from swin_lab.run.components import (
    Optimization,
    build_data,
    build_optimization,
    build_preprocessing,
    build_task,
    check_settings,
    loader_config,
)
from swin_lab.run.compose import MISSING
from swin_lab.run.loggers import flat
from swin_lab.run.model import Model, build_model
from swin_lab.training import DataDescription, RunLength

IGNORED_KEYS = (
    "name",
    "out",
    "weights",
    "max_device_batch",
    "data.root",
    "data.layout",
    "data.num_workers",
    "data.cache_mib",
    "data.in_memory",
    "model.activation_checkpointing",
    "model.attention_backend",
    "task.mixing",  # the same values as mixing.*
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.accelerator",
    "trainer.strategy",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "logger",
)
"""Keys, and prefixes of keys, that affect where and how a run is computed, but not its result."""


@dataclass(frozen=True)
class Recipe:
    """Contains a configuration with the components and values that follow from it; it allocates no weights."""

    config: Mapping[str, Any]
    optimization: Optimization
    batching: Batching
    train_images: int | None
    """Images per epoch. If None, the number is unknown."""
    class_names: tuple[str, ...]
    model: Model
    preprocessing: Preprocessing
    groups: Sequence[Mapping[str, Any]]
    """Parameter groups of the optimizer."""

    @property
    def length(self) -> RunLength | None:
        """Returns the length of the run. If the number of images is unknown or the run has no end, returns None."""
        trainer, accumulate = self.config["trainer"], self.batching.accumulate
        if self.train_images is None:
            return None
        batches, limit = self.train_images // self.batching.global_batch * accumulate, trainer["limit_train_batches"]
        batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
        steps_per_epoch = ceil(batches / accumulate)
        ends = [steps_per_epoch * trainer["max_epochs"], trainer["max_steps"]]
        return RunLength(steps_per_epoch, min(end for end in ends if end > 0)) if max(ends) > 0 else None

    @property
    def peak_lr(self) -> float:
        """Returns the largest learning rate of the run."""
        return self.optimization.optimizer.scaled_lr(self.batching.global_batch)

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of an update, the largest of all parameter groups."""
        assert self.length is not None
        return self.peak_lr * self.optimization.schedule.factor(step, self.length)


def build_recipe(
    config: Mapping[str, Any], devices: int = 1, train_images: int | None = None, like: Recipe | None = None
) -> Recipe:
    """Builds the recipe of a configuration.

    Args:
        config: conf/train.yaml, composed; values that only a run needs may be missing.
        devices: number of devices that the batch is split over.
        train_images: images of an epoch. If None, those of the data, or of the original ImageNet if `data.root` does not exist.
        like: a recipe whose data replaces that of the configuration, which then need not exist.

    Raises:
        UserError: a value is invalid.
    """
    check_settings(config)
    optimization = build_optimization(config["optimizer"], config["schedule"], config["ema"])
    batching = split_batch(config["global_batch"], devices, config["max_device_batch"])
    images, class_names = _describe_data(config["data"], like)
    task = build_task(config["task"], DataDescription(class_names=class_names))
    with torch.device("meta"):
        model = build_model(config["model"], task, img_size=config["img_size"])
    loader = loader_config(config["data"] | {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)})
    return Recipe(
        config,
        optimization,
        batching,
        train_images or images or config["data"].get("train_images"),
        class_names,
        model,
        build_preprocessing(model, None, loader, config["preset"]),
        optimization.optimizer.groups(model.network, batching.global_batch),
    )


def derived_values(recipe: Recipe) -> dict[str, Any]:
    """Returns everything that follows from a configuration, by name."""
    decayed = [p for group in recipe.groups if group["weight_decay"] for p in group["params"]]
    tensors = [p for group in recipe.groups for p in group["params"]]
    drops = _drop_path_rates(recipe.model.node)
    factor, length = recipe.optimization.schedule.factor, recipe.length
    # The first and the last learning rate do not depend on the length.
    any_length = length or RunLength(1000, 1000 * max(1, recipe.config["trainer"]["max_epochs"]))
    values: dict[str, Any] = {
        "learning rate": recipe.peak_lr,
        "initial learning rate": recipe.peak_lr * factor(0, any_length),
        "final learning rate": recipe.peak_lr * factor(any_length.total_steps, any_length),
        "parameters": sum(p.numel() for p in tensors),
        "tensors": len(tensors),
        "tensors with weight decay": len(decayed),
        "parameters with weight decay": sum(p.numel() for p in decayed),
        "parameter groups": len(recipe.groups),
        "drop path rate of the last block": drops[-1],
        "drop path rate per block": drops[1] - drops[0] if len(drops) > 1 else 0.0,
        "evaluation": str(recipe.preprocessing),
    }
    if length is not None:
        values |= {
            "updates per epoch": length.steps_per_epoch,
            "warm-up updates": recipe.optimization.schedule.warmup_steps(length),
            "updates": length.total_steps,
            "training images seen": length.total_steps * recipe.batching.global_batch,
        }
    return values


def differences(recipe: Recipe, published: Recipe, unspecified: Sequence[str] = ()) -> list[tuple[str, Any, Any]]:
    """Returns every value, given or derived, in which a recipe differs from a published one.

    Args:
        recipe: the recipe.
        published: the published recipe.
        unspecified: keys, and prefixes of keys, that the published recipe does not specify.

    Returns:
        (name, value of the published recipe, value of the recipe), with None if one of them has no such value.
    """
    given = _differing(flat(dict(published.config)), flat(dict(recipe.config)))
    return [row for row in given if not _has_prefix(row[0], (*IGNORED_KEYS, *unspecified))] + _differing(
        derived_values(published), derived_values(recipe)
    )


def _differing(published: dict[str, Any], given: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    old, new = ({key: value for key, value in values.items() if value != {}} for values in (published, given))
    return [(name, old.get(name), new.get(name)) for name in old | new if old.get(name) != new.get(name)]


def _has_prefix(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _drop_path_rates(model: Mapping[str, Any]) -> list[float]:
    blocks = sum(model.get("depths", [1]))
    rates: list[float] = torch.linspace(0, model.get("drop_path_rate") or 0.0, blocks, dtype=torch.float64).tolist()
    return rates


def _describe_data(node: Mapping[str, Any], like: Recipe | None) -> tuple[int | None, tuple[str, ...]]:
    """Returns the number of training images and the class names. If the number is None, it is that of the configuration."""
    root = str(node.get("root", MISSING))
    is_imagenet = node.get("_target_") == "swin_lab.data.ImageNet"
    if is_imagenet and (like is not None or not (root.startswith("hf://") or Path(root).expanduser().is_dir())):
        return None, tuple(map(str, range(CLASSES[node["variant"]])))
    if like is not None:
        return like.train_images, like.class_names
    if node.get("root") == MISSING:
        raise UserError("data.root must be given, for example data.root=/images")
    source = build_data(dict(node)).source
    return len(source.train.labels), tuple(source.class_names)
