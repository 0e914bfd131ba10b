"""Generator of invalid command lines: every key and every choice of train.py and eval.py with values that make no sense."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from conftest import TINY
from omegaconf import OmegaConf

from swin_lab.run.choices import choices, files_of, groups, keys_of
from swin_lab.run.compose import composed

HAS_MLFLOW = find_spec("mlflow") is not None

VALUES = ("abc", "true", "no", "-1", "0", "1e30", "nan", "inf", "''", "[3]", "{a:1}", "null")
"""Wrong types, a word for a boolean, negative, zero, huge and undefined numbers, an empty string, a list, a mapping, null."""

VALID: Mapping[str, Mapping[str, str]] = {
    "train": {
        "checkpoint.every_minutes": "null",
        "checkpoint.every_n_updates": "null",
        "compile": "true",
        "data.cache_mib": "0",
        "data.class_balance": "0",
        "data.mean": "null",
        "data.size_by_epoch": "null",
        "data.num_workers": "0 null",
        "data.split_seed": "0",
        "data.std": "null",
        "ema.decay": "0",
        "ema.warmup": "true",
        "img_size": "null",
        "max_device_batch": "null",
        "model.activation_checkpointing": "true",
        "model.drop_path_rate": "0",
        "model.lora.alpha": "null",
        "model.lora.dropout": "0",
        "model.lora.rank": "null",
        "model.num_classes": "null",
        "model.pretrained_window_sizes": "0",
        "model.qkv_bias": "true",
        "name": "abc true no 0 nan inf null",
        "optimizer.layer_decay": "null",
        "optimizer.lr": "0",
        "optimizer.weight_decay": "0",
        "out": "abc no",
        "preset": "null",
        "resume": "null",
        "save_predictions": "true",
        "schedule.cosine_after_warmup": "true",
        "schedule.epochs": "[3]",
        "schedule.gamma": "0",
        "schedule.min_lr_ratio": "0",
        "schedule.warmup_epochs": "0",
        "schedule.warmup_lr_ratio": "0",
        "seed": "0",
        "task.flip": "true",
        "task.label_smoothing": "0",
        "task.mixing": "null",
        "trainer.deterministic": "true null",
        "trainer.gradient_clip_val": "0 null",
        "trainer.max_steps": "-1",
        "trainer.profiler": "null",
        "transfer.evaluate_first": "true",
        "transfer.name": "null",
        "transfer.required": "null",
        "transfer.strict": "true",
        "weights": "null",
    },
    "eval": {
        "batch": "null",
        "calibrate": "null",
        "compile": "true",
        "out": "abc no null",
        "page": "true",
        "precision": "null",
        "task.flip": "true null",
        "task.real_labels": "null",
        "trainer.max_epochs": "-1",
        "transfer.img_size": "null",
        "transfer.window_size": "null",
        "trust": "true",
    },
    "augment": {
        "augment.auto_augment": "null",
        "augment.color_jitter": "0 null",
        "augment.erase": "0",
        "augment.hflip": "0",
        "augment.vflip": "0",
    },
    "callbacks": {"callbacks.freezing.epochs": "null", "callbacks.freezing.stages": "null"},
    "data": {
        "data.class_names": "null",
        "data.download": "true",
        "data.image_column": "abc no null",
        "data.in_memory": "true null",
        "data.label_column": "abc no null",
        "data.num_classes": "null",
        "data.separator": "abc no null",
        "data.targets": "abc no",
        "data.train_images": "null",
        "data.train_list": "abc no",
        "data.val": "null",
        "data.val_images": "null",
        "data.val_list": "abc no",
        "data.val_targets": "abc no null",
        "data.val_only": "true",
    },
    "logger": {
        **({"logger.mlflow.experiment": "abc no", "logger.mlflow.tags": "null"} if HAS_MLFLOW else {}),
        "logger.wandb.entity": "abc no null",
        "logger.wandb.notes": "abc no null",
        "logger.wandb.project": "abc no",
    },
    "mixing": {"mixing.cutmix": "0", "mixing.mixup": "0", "mixing.prob": "0", "mixing.switch_prob": "0"},
    "trainer=ddp": {
        "trainer.strategy.broadcast_buffers": "true null",
        "trainer.strategy.gradient_as_bucket_view": "true",
    },
    "model=timm": {"model.drop_path_rate": "0 null", "model.img_size": "null", "model.pretrained": "true"},
    "task=multilabel": {
        "task.class_weights": "null",
        "task.gamma_negative": "0",
        "task.gamma_positive": "0",
        "task.margin": "0",
        "task.thresholds": "null",
    },
    "task=simmim": {"task.norm_target_size": "null"},
    "task=distillation": {
        "task.feature_stages": "null",
        "task.features": "0",
        "task.share": "0 null",
        "task.teacher_transfer.img_size": "null",
        "task.teacher_transfer.name": "null",
        "task.teacher_trust": "true",
        "task.temperature": "null",
    },
}
"""Values that are valid after all: YAML's null where a value is optional, a rate or an index of 0, names of files.

The values of a key are looked up under the base, then under its group, then under "train". Each is tested.
"""

RUN, VIT = "RUN", "VIT"
"""Stand for a run directory and for the folder of a model of transformers in the overrides of a base."""

DATASET = "{_target_: torchvision.datasets.FakeData, size: 40, num_classes: 2, image_size: [3, 32, 32]}"
NEEDED: Mapping[str, list[str]] = {
    "model=timm": ["model.name=resnet10t"],
    "model=torchvision": ["model.name=mobilenet_v3_small"],
    "model=transformers": [f"model.name={VIT}"],
    "callbacks=head_only": ["transfer.required=false"],
    "callbacks=unfreeze": ["transfer.required=false"],
    "task=multilabel": ["data.several_labels=true", "task.loss=asymmetric"],
    "task=simmim": ["task.mask_patch_size=8"],
    "task=distillation": [f"task.teacher={RUN}"],
    "data=multilabel": ["data.root=nowhere", "data.targets=labels.csv"],
    "data=cifar10": ["data.download=false"],
    "data=cifar100": ["data.download=false"],
    "data=dataset": [f"data.train={DATASET}"],
    "data=synthetic": ["data.num_classes=6"],
    **{
        f"data={name}": ["data.root=nowhere"]
        for name in ("folder", "imagenet1k", "imagenet22k", "listed", "parquet", "shards", "zip")
    },
}
"""Choice -> further overrides that it needs."""

FIRST_OF_ITS_CLASS = (
    *("model=timm", "model=torchvision", "model=transformers"),
    *("data=cifar10", "data=dataset", "data=digits", "data=folder", "data=imagenet1k", "data=listed"),
    *("data=multilabel", "data=parquet"),
    *("data=shards", "data=zip", "augment=imagenet", "mixing=imagenet", "ema=warm", "logger=wandb", "trainer=ddp"),
    *(["logger=mlflow"] if HAS_MLFLOW else []),
    *("schedule=constant", "schedule=linear", "schedule=multistep", "schedule=step"),
    *("callbacks=early_stopping", "callbacks=head_only", "search=optuna"),
    *("task=distillation", "task=multilabel", "task=simmim"),
)
"""Choices of a class that no choice before them has, so that keys which the default lacks get every value (of data: all
keys but those of the loader).

Every other key of a choice gets one value: the next one for each key and for each choice, so that the choices of a class
together get them all.
"""


@dataclass(frozen=True)
class Base:
    """A command line that is accepted, and the keys to which invalid values are given."""

    name: str
    job: str
    overrides: tuple[str, ...]
    group: str | None
    """The group whose keys are walked; None: all keys."""
    number: int = 0
    """Place of the choice among those of its group."""

    def places(self) -> list[str]:
        """Returns where VALID lists the values of this base, in the order in which they are looked up."""
        return [self.name, *([self.group] if self.group else []), "train"]

    def valid(self, key: str) -> list[str]:
        """Returns the values that VALID lists for a key."""
        return next((VALID[place][key].split() for place in self.places() if key in VALID.get(place, {})), [])

    def keys(self) -> tuple[list[str], list[str]]:
        """Returns the keys that get every value, and those that get one."""
        if self.group is None:
            return [key for key in values_of(self.job, self.overrides) if key not in groups()], []
        if self.group in ("experiment", "debug"):
            files = files_of(self.group, self.name.partition("=")[2])
            found = dict.fromkeys(key for file in files for key in leaves(OmegaConf.to_container(OmegaConf.load(file))))
            return [], [key for key in found if not key.startswith(("defaults", "data."))]
        found = [key for key in values_of(self.job, self.overrides) if key.startswith(f"{self.group}.")]
        found = [key for key in found if not key.startswith("data.train.")]  # DATASET
        if self.name not in FIRST_OF_ITS_CLASS:
            return [], found
        shared = {f"data.{key}" for key in keys_of("data", "_loading")}
        known = shared if self.group == "data" else set(values_of("train", tuple(TINY)))
        return [key for key in found if key not in known], [key for key in found if key in known]

    def invalid_overrides(self, step: int = 1) -> Iterator[str]:
        """Yields overrides that must be refused.

        Args:
            step: every step-th value of a key is tested, beginning at another one for the next key.
        """
        every, one = self.keys()
        for i, key in enumerate(every):
            values = [f"{key}={value}" for value in VALUES if value not in self.valid(key)]
            yield from [*values, f"{key}x=1", f"+{key}x=1"][i % step :: step]
        for i, key in enumerate(one):
            values = [value for value in VALUES if value not in self.valid(key)]
            yield f"{key}={values[(i + self.number) % len(values)]}"

    def tested(self) -> list[str]:
        """Returns the keys whose valid values are tested: those that get every value, and those listed for this base alone."""
        return [*self.keys()[0], *(key for key in VALID.get(self.name, {}) if key in self.keys()[1])]

    def valid_overrides(self) -> Iterator[str]:
        """Yields the overrides that VALID lists for this base."""
        yield from (f"{key}={value}" for key in self.tested() for value in self.valid(key))


def bases() -> dict[str, Base]:
    """Returns the default training and evaluation, and those with every choice of every group."""
    found = [Base("train", "train", tuple(TINY), None), Base("eval", "eval", (f"checkpoint={RUN}",), None)]
    for group in groups():
        for i, choice in enumerate(choices(group)):
            name = f"{group}={choice}"
            tiny = [entry for entry in TINY if not entry.startswith("model" if group == "experiment" else group)]
            more = ["transfer.required=false", "transfer.head=auto"] if group == "experiment" else []
            found.append(Base(name, "train", (*tiny, name, *NEEDED.get(name, []), *more), group, i))
            if group == "data":
                found.append(Base(f"eval {name}", "eval", (f"checkpoint={RUN}", name, *NEEDED.get(name, [])), group, i + 5))
    return {base.name: base for base in found if not base.name.endswith("=none") or base.group == "augment"}


@cache
def values_of(job: str, overrides: tuple[str, ...]) -> list[str]:
    """Returns the full names of all values of a configuration."""
    return list(leaves(composed(overrides, job)))


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the full name of every value of a configuration."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
