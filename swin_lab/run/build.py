"""From a composed configuration to objects, each key checked against what its target takes."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from torch import nn

from swin_lab.data import ImageSource, LoaderConfig, Preprocessing, channel_statistics
from swin_lab.data.transforms import Step
from swin_lab.errors import UserError, did_you_mean, is_number, is_whole
from swin_lab.models import SwinTransformer
from swin_lab.paths import CONF
from swin_lab.weights import Checkpoint, load, open_checkpoint, with_trained_windows
from swin_lab.weights.adapt import METHODS
from swin_lab.weights.checkpoint import NETWORK_CLASS
from swin_lab.weights.head import POLICIES
from swin_lab.weights.preprocessing import preset

Config = dict[str, Any]

DECIDED_ELSEWHERE = {
    "precision": "set precision=...",
    "accumulate_grad_batches": "set global_batch and max_device_batch",
    "fast_dev_run": "choose debug=limit",
    "callbacks": "add to the callbacks group",
    "logger": "choose with logger=...",
    "enable_progress_bar": "it is shown on a terminal",
    "enable_model_summary": "the size of the model is printed",
    "num_sanity_val_steps": "set transfer.check",
    "use_distributed_sampler": "every image of an evaluation is counted once",
}
"""Arguments of Lightning's Trainer that have their own place."""


def check_top_keys(config: Config, job: str) -> None:
    """A file on top of the defaults, such as an experiment, may have misspelt a group: Hydra adds such a key silently."""
    top = OmegaConf.to_container(OmegaConf.load(CONF / f"{job}.yaml"))
    assert isinstance(top, dict)
    groups = {str(key).split()[-1] for entry in top["defaults"] if isinstance(entry, dict) for key in entry}
    known = (groups | {str(key) for key in top} | {"overrides"}) - {"defaults", "hydra"}
    for key in config:
        if key not in known:
            raise UserError(f"unknown key {key}{did_you_mean(key, known)}")


def make(where: str, node: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> Any:
    """Instantiates a node that has `_target_`.

    Args:
        where: name of the node, for messages.
        node: `_target_` and its arguments, plain Python.
        extra: further arguments that come from the run, not from the configuration.

    Raises:
        UserError: the target does not exist, takes no such argument, or refuses a value.
    """
    if "_target_" not in node:
        raise UserError(f"{where} names no class to build (_target_); choose one of the choices that --help lists")
    check_arguments(where, node)
    taken = parameters_of(where, node["_target_"]).values()
    needed = [p.name for p in taken if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [name for name in needed if name not in node and name not in (extra or {})]
    if missing and not node.get("_partial_") and "_args_" not in node:
        raise UserError(f"{where}.{missing[0]} is missing; {node['_target_']} needs it")
    try:
        return instantiate(dict(node), **(extra or {}), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        elsewhere = not str(node["_target_"]).startswith("swin_lab.")  # ours say UserError, what else they raise is a bug
        if elsewhere and isinstance(cause, TypeError | ValueError | MisconfigurationException):
            raise UserError(f"{where}: {cause}") from error
        raise cause or error from None


def check_arguments(where: str, node: Mapping[str, Any]) -> None:
    """Raises UserError for a key that the node's target, or a target inside it, does not take."""
    if "_target_" in node:
        parameters = parameters_of(where, node["_target_"])
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            for key in node:
                if key not in parameters and not key.startswith("_"):
                    raise UserError(f"unknown key {where}.{key}{did_you_mean(key, parameters)}")
    for key, value in node.items():
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, Mapping):
                check_arguments(f"{where}.{key}", child)


def parameters_of(where: str, target: Any) -> Mapping[str, inspect.Parameter]:
    """What a target takes; raises UserError if there is no such class or function."""
    try:
        found = get_object(target)
    except Exception as error:
        raise UserError(f"{where}._target_={target} cannot be imported: {str(error).splitlines()[0]}") from error
    if not callable(found):
        raise UserError(f"{where}._target_={target} is no class or function")
    return inspect.signature(found).parameters


class Augment(Protocol):
    """What `augment=` chooses."""

    @property
    def image(self) -> list[Step]:
        """What is done to the RGB image."""

    @property
    def tensor(self) -> list[Step]:
        """What is done to the normalised tensor."""


class Steps(NamedTuple):
    """An augmentation that is spelt out."""

    image: list[Step]
    tensor: list[Step]


def make_augment(augment: Config, mean: Sequence[float]) -> Augment:
    """The augmentation of an `augment` node: a class that brings both lists, or the lists themselves.

    Raises:
        UserError: the node is neither.
    """
    if "_target_" in augment:
        made: Augment = make("augment", augment, {"mean": mean})
        return made
    for key in augment:
        if key not in ("image", "tensor"):
            raise UserError(f"unknown key augment.{key}{did_you_mean(key, ('image', 'tensor'))}")
    for key in ("image", "tensor"):
        if not isinstance(augment.get(key), list):
            raise UserError(f"augment.{key} must be a list of transforms, [] for none")
    lists = {key: [make(f"augment.{key}", node) for node in nodes] for key, nodes in augment.items()}
    return Steps(lists["image"], lists["tensor"])


def make_optional(where: str, node: Config | None) -> Any:
    """What a group chooses; None where it chooses `none`, whatever an experiment has set for the class it would have had."""
    return make(where, node) if node and "_target_" in node else None


OF_THE_RUN = ("required", "check")
"""Keys of `transfer` that are no argument of `swin_lab.weights.load`."""


def check_transfer(transfer: Config) -> None:
    """Raises UserError for a key that is none, or a value that no transfer has."""
    taken = {*inspect.signature(load).parameters, *OF_THE_RUN}
    for key in transfer:
        if key not in taken:
            raise UserError(f"unknown key transfer.{key}{did_you_mean(key, taken)}")
    for key, choices in (("head", POLICIES), ("tables", METHODS)):
        if key in transfer and transfer[key] not in choices:
            raise UserError(f"transfer.{key}={transfer[key]} is unknown{did_you_mean(str(transfer[key]), choices)}")


def transfer_arguments(transfer: Config) -> Config:
    """Of `swin_lab.weights.load`: what is given."""
    return {key: value for key, value in transfer.items() if value is not None and key not in OF_THE_RUN}


def make_source(data: Config) -> tuple[ImageSource, LoaderConfig]:
    """The images of a `data` node, and how they are read."""
    shared = {field.name for field in fields(LoaderConfig)}
    if "_target_" in data:
        taken = shared | set(parameters_of("data", data["_target_"]))
        for key in data:
            if key not in taken and not key.startswith("_"):
                raise UserError(f"unknown key data.{key}{did_you_mean(key, taken)}")
    loading = LoaderConfig(**{key: value for key, value in data.items() if key in shared})
    return make("data", {key: value for key, value in data.items() if key not in shared}), loading


def make_network(model: Config, num_classes: int) -> tuple[nn.Module, Config]:
    """The network of a `model` node for data with that many classes, and the node with its `num_classes` filled in.

    Raises:
        UserError: the node asks for another number of classes.
    """
    wanted = model.get("num_classes")
    if wanted is not None and wanted != num_classes:
        raise UserError(f"model.num_classes={wanted} but the data has {num_classes} classes; leave model.num_classes out")
    complete = {**model, "num_classes": num_classes}
    return make("model", complete), complete


def check_model(model: Config) -> None:
    """Tells of a wrong model before any image is read: ours is built without memory, of others only the keys are checked."""
    check_arguments("model", model)
    if model.get("_target_") == NETWORK_CLASS:
        with torch.device("meta"):
            make("model", {**model, "num_classes": model.get("num_classes") or 2})


def open_weights(weights: str | None, transfer: Config, model: Config) -> tuple[Checkpoint | None, Config]:
    """The weights that training starts from, and the `model` node that fits them; (None, the node) without any.

    Raises:
        UserError: they cannot be read, or are those of another network.
    """
    if weights is None:
        if transfer.get("required"):
            raise UserError("weights must be given: this recipe fine-tunes, for example weights=FILE.pth, a run, OWNER/NAME")
        return None, model
    if model.get("_target_") != NETWORK_CLASS:
        raise UserError(f"weights={weights} is for {NETWORK_CLASS}; the model is a {model.get('_target_')}")
    checkpoint = open_checkpoint(weights, name=transfer.get("name"), ema=bool(transfer.get("ema")))
    with torch.device("meta"):
        asked = SwinTransformer(
            **{key: value for key, value in model.items() if key != "_target_" and value is not None}
        ).config
    fitting = with_trained_windows(checkpoint, asked)
    return checkpoint, {**model, "pretrained_window_sizes": fitting["pretrained_window_sizes"]}


def make_preprocessing(
    model: Config, loading: LoaderConfig, source: ImageSource | None, chosen: str | None = None
) -> Preprocessing:
    """What the network's size, the data's channel statistics and the chosen preset ask for.

    Raises:
        UserError: a value that cannot be; an unknown preset, or one for a network that is no SwinTransformer.
    """
    fitted: Config = {"resize_mode": loading.resize_mode, "crop_pct": loading.crop_pct, "interpolation": loading.interpolation}
    if chosen is not None:
        if model.get("_target_") != NETWORK_CLASS:
            raise UserError(
                f"preset={chosen} is for {NETWORK_CLASS}; give data.resize_mode, data.crop_pct and data.interpolation"
            )
        fitted = preset(chosen, model)
    mean, std = loading.mean, loading.std
    if mean is None or std is None:
        assert source is not None
        measured = channel_statistics(source.train)
        mean, std = mean or measured[0], std or measured[1]
    size = model.get("img_size", 224)
    return Preprocessing.checked(
        img_size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        channels=model.get("in_channels", 3),
        mean=mean,
        std=std,
        **fitted,
    )


def make_trainer(trainer: Config, precision: str, callbacks: list[Any]) -> Trainer:
    """Lightning's Trainer; loggers and directories are added when the run directory exists.

    Raises:
        UserError: Lightning refuses a value.
    """
    for key, instead in DECIDED_ELSEWHERE.items():
        if key in trainer:
            raise UserError(f"trainer.{key} is decided by the run; {instead}")
    for key in ("max_epochs", "limit_train_batches", "limit_val_batches"):
        value = trainer.get(key, 1)
        if not is_number(value) or not (value > 0 or (key == "max_epochs" and value == -1)):
            raise UserError(f"trainer.{key}={value} is no number above zero")
    clip, every = trainer.get("gradient_clip_val"), trainer.get("check_val_every_n_epoch", 1)
    if clip is not None and (not is_number(clip) or clip < 0):
        raise UserError(f"trainer.gradient_clip_val={clip} is no number of zero or more")
    if not is_whole(every) or every < 1:
        raise UserError(f"trainer.check_val_every_n_epoch={every} is no whole number above zero")
    made: Trainer = make(
        "trainer",
        trainer,
        {
            "precision": precision,
            "callbacks": callbacks,
            "logger": False,
            "enable_progress_bar": any("ProgressBar" in type(callback).__name__ for callback in callbacks),
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,  # ours neither repeats nor drops an image of an evaluation
        },
    )
    return made


def choose_precision(wanted: str, accelerator: str) -> str:
    """`auto` is bf16-mixed on a GPU that computes in bfloat16, 32-true elsewhere; any other value is kept."""
    if wanted != "auto":
        return str(wanted)
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
