"""The values that follow from a configuration, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch

from swin_lab.data.sources.imagenet import CLASSES
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from swin_lab.run.augmentation import build_augmentation
from swin_lab.run.batching import Batching, split_batch
from swin_lab.run.checks import check_given, check_loader, check_settings
from swin_lab.run.components import (
    LOADER_KEYS,
    Optimization,
    build_callbacks,
    build_data,
    build_optimization,
    build_preprocessing,
    build_task,
    loader_config,
)
from swin_lab.run.compose import MISSING
from swin_lab.run.instantiate import check_node, is_chosen
from swin_lab.run.model import Model, build_model
from swin_lab.training import DataDescription, RunLength

CIFAR_IMAGES, CIFAR_CLASSES = 50_000, {"cifar10": 10, "cifar100": 100}
"""Training images, and classes by variant."""
MANY = 2**60
"""A number beside which 1 vanishes in floating point."""


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
        return run_length(self.config["trainer"], self.train_images, self.batching)

    @property
    def peak_lr(self) -> float:
        """Returns the largest learning rate of the run."""
        return self.optimization.optimizer.scaled_lr(self.batching.global_batch)

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of an update, the largest of all parameter groups."""
        assert self.length is not None
        return self.peak_lr * self.optimization.schedule.factor(step, self.length)


def run_length(trainer: Mapping[str, Any], train_images: int | None, batching: Batching) -> RunLength | None:
    """Returns the length of a run. If the number of images is unknown or the run has no end, returns None.

    Args:
        trainer: the `trainer` node.
        train_images: images of an epoch. If None, their number is unknown.
        batching: how the batch is split.
    """
    if train_images is None:
        return None
    batches, limit = train_images // batching.global_batch * batching.accumulate, limit_train_batches(trainer)
    batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    steps_per_epoch = ceil(batches / batching.accumulate)
    ends = [steps_per_epoch * trainer["max_epochs"]] if trainer["max_epochs"] > 0 else []
    ends += [trainer["max_steps"]] if trainer.get("max_steps", -1) > 0 else []
    return RunLength(steps_per_epoch, min(ends)) if ends else None


def limit_train_batches(trainer: Mapping[str, Any]) -> int | float:
    """Returns the number of batches of an epoch, or their share as a float; as in Lightning, the default is all of them."""
    limit: int | float | None = trainer.get("limit_train_batches")
    return 1.0 if limit is None else limit


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
    mixes = is_chosen("mixing", config["mixing"])
    batching = split_batch(config["global_batch"], devices, config["max_device_batch"], mixes=mixes)
    images, class_names = _describe_data(config["data"], like)
    task = build_task(config["task"], DataDescription(class_names=class_names))
    with torch.device("meta"):
        model = build_model(config["model"], task, img_size=config["img_size"])
    loader = check_loader(loader_config(config["data"] | {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}))
    preprocessing = build_preprocessing(model, None, loader, config["preset"])
    build_augmentation(config["augment"], preprocessing)  # These two are only checked.
    build_callbacks(config["callbacks"], task, optimization.ema is not None)
    return Recipe(
        config,
        optimization,
        batching,
        train_images or images or config["data"].get("train_images"),
        class_names,
        model,
        preprocessing,
        optimization.optimizer.groups(model.network, batching.global_batch),
    )


def derived_values(recipe: Recipe) -> dict[str, Any]:
    """Returns everything that follows from a configuration, by name."""
    decayed = [p for group in recipe.groups if group["weight_decay"] for p in group["params"]]
    tensors = [p for group in recipe.groups for p in group["params"]]
    drops = _drop_path_rates(recipe.model.node)
    factor, length = recipe.optimization.schedule.factor, recipe.length
    epochs = max(1, recipe.config["trainer"]["max_epochs"])
    # The first and the last learning rate do not depend on the number of updates; with very many, a decay reaches its end.
    known = length if length is not None and length.total_steps > 0 else RunLength(1, epochs)
    fine = RunLength(known.steps_per_epoch * MANY, known.total_steps * MANY)
    values: dict[str, Any] = {
        "learning rate": recipe.peak_lr,
        "initial learning rate": recipe.peak_lr * factor(0, fine),
        "final learning rate": recipe.peak_lr * factor(fine.total_steps - 1, fine),
        "parameters": sum(p.numel() for p in tensors),
        "tensors": len(tensors),
        "tensors with weight decay": len(decayed),
        "parameters with weight decay": sum(p.numel() for p in decayed),
        "parameter groups": len(recipe.groups),
        "drop path rate of the last block": drops[-1],
        "drop path rate per block": drops[1] - drops[0] if len(drops) > 1 else 0.0,
        "evaluation": str(recipe.preprocessing),
    }
    if recipe.model.lora is not None:
        values["trained parameters"] = sum(p.numel() for p in tensors if p.requires_grad)
    if length is not None:
        values |= {
            "updates per epoch": length.steps_per_epoch,
            "warm-up updates": recipe.optimization.schedule.warmup_steps(length),
            "updates": length.total_steps,
            "training images seen": length.total_steps * recipe.batching.global_batch,
        }
    return values


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
    check_given({"data": node})
    if node.get("_target_") == "swin_lab.data.Cifar":  # It would be downloaded.
        check_node("data", {key: value for key, value in node.items() if key not in LOADER_KEYS}, provided=())
        return CIFAR_IMAGES, tuple(map(str, range(CIFAR_CLASSES[node["variant"]])))
    source = build_data(dict(node)).source
    return len(source.train.labels), tuple(source.class_names)
