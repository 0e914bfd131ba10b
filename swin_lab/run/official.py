"""Configuration files of the official code (github.com/microsoft/Swin-Transformer at f82860b) as overrides of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from swin_lab.errors import UserError
from swin_lab.models import SwinTransformer, create_model, list_models

DEFAULTS: dict[str, Any] = {
    "DATA.BATCH_SIZE": 128,
    "DATA.DATASET": "imagenet",
    "DATA.IMG_SIZE": 224,
    "DATA.INTERPOLATION": "bicubic",
    "MODEL.TYPE": "swin",
    "MODEL.NAME": "swin_tiny_patch4_window7_224",
    "MODEL.LABEL_SMOOTHING": 0.1,
    "MODEL.DROP_PATH_RATE": 0.1,
    "TRAIN.EPOCHS": 300,
    "TRAIN.WARMUP_EPOCHS": 20,
    "TRAIN.WEIGHT_DECAY": 0.05,
    "TRAIN.BASE_LR": 5e-4,
    "TRAIN.WARMUP_LR": 5e-7,
    "TRAIN.MIN_LR": 5e-6,
    "TRAIN.CLIP_GRAD": 5.0,
    "TRAIN.ACCUMULATION_STEPS": 1,
    "TRAIN.USE_CHECKPOINT": False,
    "TRAIN.LR_SCHEDULER.NAME": "cosine",
    "TRAIN.LR_SCHEDULER.DECAY_EPOCHS": 30,
    "TRAIN.LR_SCHEDULER.DECAY_RATE": 0.1,
    "TRAIN.LR_SCHEDULER.WARMUP_PREFIX": True,
    "TRAIN.LR_SCHEDULER.GAMMA": 0.1,
    "TRAIN.LR_SCHEDULER.MULTISTEPS": [],
    "TRAIN.OPTIMIZER.NAME": "adamw",
    "TRAIN.OPTIMIZER.EPS": 1e-8,
    "TRAIN.OPTIMIZER.BETAS": [0.9, 0.999],
    "TRAIN.LAYER_DECAY": 1.0,
    "AUG.COLOR_JITTER": 0.4,
    "AUG.AUTO_AUGMENT": "rand-m9-mstd0.5-inc1",
    "AUG.REPROB": 0.25,
    "AUG.REMODE": "pixel",
    "AUG.RECOUNT": 1,
    "AUG.MIXUP": 0.8,
    "AUG.CUTMIX": 1.0,
    "AUG.MIXUP_PROB": 1.0,
    "AUG.MIXUP_SWITCH_PROB": 0.5,
    "AUG.MIXUP_MODE": "batch",
    "TEST.CROP": True,
    "SEED": 0,
}
"""What a file does not say (config.py)."""

NETWORK_DEFAULTS: dict[str, Any] = {
    "PATCH_SIZE": 4,
    "IN_CHANS": 3,
    "EMBED_DIM": 96,
    "DEPTHS": [2, 2, 6, 2],
    "NUM_HEADS": [3, 6, 12, 24],
    "WINDOW_SIZE": 7,
    "MLP_RATIO": 4.0,
    "QKV_BIAS": True,
    "PRETRAINED_WINDOW_SIZES": [0, 0, 0, 0],
}

IGNORED = (
    "MODEL.RESUME",
    "MODEL.PRETRAINED",
    "MODEL.NUM_CLASSES",
    "DATA.DATA_PATH",
    "DATA.ZIP_MODE",
    "DATA.CACHE_MODE",
    "DATA.PIN_MEMORY",
    "DATA.NUM_WORKERS",
    "TRAIN.START_EPOCH",
    "TRAIN.AUTO_RESUME",
    "TEST.SEQUENTIAL",
    "TEST.SHUFFLE",
    "AMP_ENABLE",
    "ENABLE_AMP",
    "OUTPUT",
    "TAG",
    "SAVE_FREQ",
    "PRINT_FREQ",
    "FUSED_LAYERNORM",
    "FUSED_WINDOW_PROCESS",
)
"""Where and how a run is computed, which the recipe leaves open."""

TYPES = {"swin": ("SWIN", 1), "swinv2": ("SWINV2", 2)}
DATASETS = {"imagenet": "imagenet1k", "imagenet22k": "imagenet22k"}


@dataclass(frozen=True)
class Official:
    """What a file amounts to."""

    name: str
    """MODEL.NAME."""
    overrides: list[str]
    """Of train.py."""
    unknown: list[str]
    """Keys of the file that have no place here."""


def read_official(file: Path, devices: int = 8) -> Official:
    """Reads a YAML file of the official code.

    Args:
        file: such as configs/swin/swin_large_patch4_window7_224_22kto1k_finetune.yaml.
        devices: GPUs that its batch size, which is per GPU, is meant for.

    Raises:
        UserError: the file is none, or describes what this project has not (MLP and MoE networks, other optimizers).
    """
    given = _flat(_load(file))
    kind = str(given.get("MODEL.TYPE", DEFAULTS["MODEL.TYPE"]))
    if kind not in TYPES:
        raise UserError(f"{file}: MODEL.TYPE={kind} is no network of this project; it has {' and '.join(TYPES)}")
    section, version = TYPES[kind]
    defaults = DEFAULTS | {f"MODEL.{section}.{key}": value for key, value in NETWORK_DEFAULTS.items()}
    unknown = [key for key in given if key not in defaults and not _is_ignored(key)]
    values = defaults | {key: _typed(value, defaults.get(key)) for key, value in given.items()}
    optimizer = str(values["TRAIN.OPTIMIZER.NAME"])
    if optimizer.lower() != "adamw":
        raise UserError(f"{file}: TRAIN.OPTIMIZER.NAME={optimizer} is not expressed; this project has adamw")
    network = {key: values[f"MODEL.{section}.{key}"] for key in NETWORK_DEFAULTS}
    overrides = [
        *_model(network, version, values),
        *_data(file, values),
        *_augmentation(values),
        *_optimization(file, values, devices),
    ]
    return Official(str(values["MODEL.NAME"]), overrides, unknown)


def _model(network: dict[str, Any], version: int, values: dict[str, Any]) -> list[str]:
    """The variant that these numbers are, else each of them."""
    wanted = {
        "version": version,
        "img_size": values["DATA.IMG_SIZE"],
        "patch_size": network["PATCH_SIZE"],
        "in_channels": network["IN_CHANS"],
        "embed_dim": network["EMBED_DIM"],
        "depths": network["DEPTHS"],
        "num_heads": network["NUM_HEADS"],
        "window_size": network["WINDOW_SIZE"],
        "pretrained_window_sizes": network["PRETRAINED_WINDOW_SIZES"] if any(network["PRETRAINED_WINDOW_SIZES"]) else 0,
        "mlp_ratio": network["MLP_RATIO"],
        "qkv_bias": network["QKV_BIAS"],
    }
    named = next((name for name in list_models() if _is_variant(name, wanted)), None)
    drop = f"model.drop_path_rate={values['MODEL.DROP_PATH_RATE']}"
    if named is not None:
        return [f"model={named}", drop]
    base = "swin_tiny_patch4_window7_224" if version == 1 else "swinv2_tiny_window8_256"
    return [f"model={base}", *(f"model.{key}={_shown(value)}" for key, value in wanted.items() if key != "version"), drop]


def _is_variant(name: str, wanted: dict[str, Any]) -> bool:
    import torch

    with torch.device("meta"):
        variant = create_model(name).config
        asked = SwinTransformer(**wanted).config
    return all(variant[key] == asked[key] for key in wanted)


def _data(file: Path, values: dict[str, Any]) -> list[str]:
    name = str(values["DATA.DATASET"]).lower()
    if name not in DATASETS:
        raise UserError(f"{file}: DATA.DATASET={values['DATA.DATASET']} is none of {', '.join(DATASETS)}")
    usual = values["TEST.CROP"] == (values["DATA.IMG_SIZE"] < 384) and values["DATA.INTERPOLATION"] == "bicubic"
    resize_mode = "crop" if values["TEST.CROP"] else "stretch"
    spelt_out = [f"data.resize_mode={resize_mode}", f"data.interpolation={values['DATA.INTERPOLATION']}"]
    fitted = ["preset=official"] if usual else ["preset=null", *spelt_out]
    return [f"data={DATASETS[name]}", *fitted]


def _augmentation(values: dict[str, Any]) -> list[str]:
    policy = values["AUG.AUTO_AUGMENT"]
    mixing = "imagenet" if values["AUG.MIXUP"] or values["AUG.CUTMIX"] else "none"
    mixed = [
        f"mixing.mixup={values['AUG.MIXUP']}",
        f"mixing.cutmix={values['AUG.CUTMIX']}",
        f"mixing.prob={values['AUG.MIXUP_PROB']}",
        f"mixing.switch_prob={values['AUG.MIXUP_SWITCH_PROB']}",
        f"mixing.mode={values['AUG.MIXUP_MODE']}",
    ]
    return [
        "augment=imagenet",
        f"augment.interpolation={values['DATA.INTERPOLATION']}",
        f"augment.color_jitter={values['AUG.COLOR_JITTER']}",
        f"augment.auto_augment={'null' if policy in (None, 'none', '') else policy}",
        f"augment.erase={values['AUG.REPROB']}",
        f"augment.erase_mode={values['AUG.REMODE']}",
        f"augment.erase_count={values['AUG.RECOUNT']}",
        f"mixing={mixing}",
        *(mixed if mixing == "imagenet" else []),
        f"label_smoothing={values['MODEL.LABEL_SMOOTHING']}",
    ]


def _optimization(file: Path, values: dict[str, Any], devices: int) -> list[str]:
    base, decay = values["TRAIN.BASE_LR"], values["TRAIN.LAYER_DECAY"]
    per_device, steps = values["DATA.BATCH_SIZE"], values["TRAIN.ACCUMULATION_STEPS"]
    kind = values["TRAIN.LR_SCHEDULER.NAME"]
    schedules: dict[str, Callable[[], list[str]]] = {
        "cosine": lambda: [
            f"schedule.final={_part(values['TRAIN.MIN_LR'], base)}",
            f"schedule.warmup_prefix={'fixed' if values['TRAIN.LR_SCHEDULER.WARMUP_PREFIX'] else 'as_published'}",
        ],
        "linear": lambda: ["schedule.final=0.01"],  # lr_min_rate of its build_scheduler
        "step": lambda: [
            f"schedule.every_epochs={values['TRAIN.LR_SCHEDULER.DECAY_EPOCHS']}",
            f"schedule.gamma={values['TRAIN.LR_SCHEDULER.DECAY_RATE']}",
        ],
        "multistep": lambda: [
            f"schedule.epochs={_shown(values['TRAIN.LR_SCHEDULER.MULTISTEPS'])}",
            f"schedule.gamma={values['TRAIN.LR_SCHEDULER.GAMMA']}",
        ],
    }
    if kind not in schedules:
        raise UserError(f"{file}: TRAIN.LR_SCHEDULER.NAME={kind} is none of {', '.join(schedules)}")
    return [
        f"global_batch={per_device * steps * devices}",
        f"max_device_batch={per_device}",
        "optimizer=adamw_imagenet",
        f"optimizer.lr={base}",
        f"optimizer.weight_decay={values['TRAIN.WEIGHT_DECAY']}",
        f"optimizer.betas={_shown(values['TRAIN.OPTIMIZER.BETAS'])}",
        f"optimizer.eps={values['TRAIN.OPTIMIZER.EPS']}",
        *([f"optimizer.layer_decay={decay}"] if decay != 1.0 else []),
        f"schedule={kind}",
        f"schedule.warmup_epochs={values['TRAIN.WARMUP_EPOCHS']}",
        f"schedule.warmup_start={_part(values['TRAIN.WARMUP_LR'], base)}",
        *schedules[kind](),
        f"trainer.max_epochs={values['TRAIN.EPOCHS']}",
        f"trainer.gradient_clip_val={values['TRAIN.CLIP_GRAD']}",
        f"seed={values['SEED']}",
    ]


def _load(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict) or not {"MODEL", "DATA", "TRAIN"} & set(tree):
        raise UserError(f"{file} is no configuration of the official code: it has none of MODEL, DATA and TRAIN")
    return tree


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in tree.items():
        values |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values


def _is_ignored(key: str) -> bool:
    return key in IGNORED


def _typed(value: Any, default: Any) -> Any:
    """A float where YAML 1.1 reads text, as in 2e-05."""
    try:
        return float(value) if isinstance(default, float) and isinstance(value, int | str) else value
    except ValueError as error:
        raise UserError(f"{value} stands in the official file where a number belongs") from error


def _part(rate: float, highest: float) -> float:
    """Of the highest rate, without the noise of a float division."""
    if not highest > 0:
        raise UserError(f"TRAIN.BASE_LR={highest} is no number above zero")
    return float(f"{rate / highest:.12g}")


def _shown(value: Any) -> str:
    return str(value).replace(" ", "")
