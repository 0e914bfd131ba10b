"""What a configuration amounts to: the numbers that follow from it, and where it departs from another one."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import torch

from swin_lab.data import LoaderConfig, Preprocessing
from swin_lab.data.sources.imagenet import CLASSES
from swin_lab.errors import UserError
from swin_lab.run import build
from swin_lab.run.batching import cut
from swin_lab.run.compose import MISSING
from swin_lab.run.loggers import flat
from swin_lab.training import AdamW, Schedule, Span
from swin_lab.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD

IMAGENET_TARGET = "swin_lab.data.ImageNet"

NEUTRAL = (
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
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.accelerator",
    "trainer.strategy",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "logger",
)
"""Keys, and beginnings of keys, that say where and how a run is computed and not what is computed."""


class Recipe:
    """A configuration with the numbers that follow from it.

    Args:
        config: conf/train.yaml, composed; values that only a run needs may be missing.
        devices: on how many the batch is computed.
        train_images: in an epoch; None for what the data has, or the original ImageNet where there is none at `data.root`.
        like: a recipe whose data stands for this one's, which then need not be there.

    Raises:
        UserError: a value that cannot be.
    """

    def __init__(
        self, config: dict[str, Any], devices: int = 1, train_images: int | None = None, like: "Recipe | None" = None
    ) -> None:
        self.config = config
        self.optimizer: AdamW = build.make("optimizer", config["optimizer"])
        self.schedule: Schedule = build.make("schedule", config["schedule"])
        self.batching = cut(config["global_batch"], devices, config["max_device_batch"])
        images, self.classes = _size(config["data"], like)
        self.train_images = train_images or images or config["data"].get("train_images")
        with torch.device("meta"):
            self.network, self.model = build.make_network(config["model"], self.classes)
        self.groups = self.optimizer.groups(self.network, config["global_batch"])

    @property
    def span(self) -> Span | None:
        """Length of the run in updates; None if the number of images is not known or there is no number of epochs."""
        trainer, accumulate = self.config["trainer"], self.batching.accumulate
        if self.train_images is None:
            return None
        batches, limit = self.train_images // self.config["global_batch"] * accumulate, trainer["limit_train_batches"]
        batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
        per_epoch = ceil(batches / accumulate)
        ends = [per_epoch * trainer["max_epochs"], trainer["max_steps"]]
        return Span(per_epoch, min(end for end in ends if end > 0)) if max(ends) > 0 else None

    def rate(self, update: int) -> float:
        """The highest learning rate of an update."""
        assert self.span is not None
        return self.highest_rate * self.schedule.factor(update, self.span)

    @property
    def highest_rate(self) -> float:
        return self.optimizer.scaled_lr(self.config["global_batch"])

    def derived(self) -> dict[str, Any]:
        """Everything that follows, by name."""
        decayed = [p for group in self.groups if group["weight_decay"] for p in group["params"]]
        tensors = [p for group in self.groups for p in group["params"]]
        drops = self._drop_paths()
        span = self.span or Span(1000, 1000 * max(1, self.config["trainer"]["max_epochs"]))  # of any length: ends are the same
        values: dict[str, Any] = {
            "learning rate": self.highest_rate,
            "learning rate at start": self.highest_rate * self.schedule.factor(0, span),
            "learning rate at end": self.highest_rate * self.schedule.factor(span.total, span),
            "parameters": sum(p.numel() for p in tensors),
            "tensors": len(tensors),
            "decayed tensors": len(decayed),
            "decayed parameters": sum(p.numel() for p in decayed),
            "parameter groups": len(self.groups),
            "drop path of the last block": drops[-1],
            "drop path per block": drops[1] - drops[0] if len(drops) > 1 else 0.0,
            "evaluation": str(self._preprocessing()),
        }
        if self.span is not None:
            values |= {
                "updates per epoch": self.span.per_epoch,
                "warm-up updates": self.schedule.warmup_updates(self.span),
                "updates": self.span.total,
                "images seen": self.span.total * self.config["global_batch"],
            }
        return values

    def _drop_paths(self) -> list[float]:
        blocks = sum(self.model.get("depths", [1]))
        return torch.linspace(0, self.model.get("drop_path_rate", 0.0), blocks, dtype=torch.float64).tolist()

    def _preprocessing(self) -> Preprocessing:
        loading = {key: value for key, value in self.config["data"].items() if key in LoaderConfig.__dataclass_fields__}
        known = LoaderConfig(**loading | {"mean": IMAGENET_MEAN, "std": IMAGENET_STD})
        return build.make_preprocessing(self.model, known, None, self.config["preset"])


def departures(ours: Recipe, published: Recipe, unsaid: Sequence[str] = ()) -> list[tuple[str, Any, Any]]:
    """Every value, given or derived, in which a recipe differs from another one.

    Args:
        ours: the one.
        published: the other.
        unsaid: keys, and beginnings of keys, that the published one says nothing of.

    Returns:
        (name, published, ours), None for what one of them has not.
    """
    given = _differences(flat(published.config), flat(ours.config))
    return [row for row in given if not _begins(row[0], (*NEUTRAL, *unsaid))] + _differences(
        published.derived(), ours.derived()
    )


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    theirs, ours = ({key: value for key, value in values.items() if value != {}} for values in (theirs, ours))
    names = [*theirs, *(name for name in ours if name not in theirs)]
    return [(name, theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)]


def _begins(key: str, beginnings: Sequence[str]) -> bool:
    return any(key == beginning or key.startswith(f"{beginning}.") for beginning in beginnings)


def _is_absent(data: dict[str, Any]) -> bool:
    """Whether this is ImageNet, and there is none where it should be."""
    root = str(data.get("root", MISSING))
    return data.get("_target_") == IMAGENET_TARGET and not (root.startswith("hf://") or Path(root).expanduser().is_dir())


def _size(data: dict[str, Any], like: Recipe | None) -> tuple[int | None, int]:
    """Training images (None for those the configuration names) and classes."""
    if _is_absent(data) or (like is not None and data.get("_target_") == IMAGENET_TARGET):
        return None, CLASSES[data["variant"]]
    if like is not None:
        return like.train_images, like.classes
    if data.get("root") == MISSING:
        raise UserError("data.root must be given, for example data.root=/images")
    source, _ = build.make_source(data)
    return len(source.train.labels), len(source.class_names)
