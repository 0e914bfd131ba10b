"""Translates values of the official code's configuration into overrides of train.py."""

from typing import Any

from swin_lab.errors import UserError, did_you_mean
from swin_lab.models import SwinConfig, list_models, model_config
from swin_lab.run.official.defaults import SIMMIM_PRETRAINING
from swin_lab.validation import PositiveFloat, check_value

DATASETS = {"imagenet": "imagenet1k", "imagenet22k": "imagenet22k"}
"""DATA.DATASET -> choice of data."""

BASES = ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swin_mlp_tiny_c24_patch4_window8_256")
"""The variants of which a network of each kind is made that is none itself."""


def to_overrides(
    file: str, values: dict[str, Any], network: dict[str, Any], *, kind: dict[str, Any], global_batch: int
) -> list[str]:
    """Returns the overrides of train.py that make the same configuration.

    Args:
        file: name of the file, for error messages.
        values: every key of the official configuration under its dotted name.
        network: the keys of MODEL.SWIN, MODEL.SWINV2 or MODEL.SWIN_MLP.
        kind: the hyper-parameters version and token_mixer.
        global_batch: images per update over all GPUs.

    Raises:
        UserError: a value is unknown or cannot be expressed.
    """
    pretrains = values["MODEL.NAME"] == SIMMIM_PRETRAINING
    return [
        *_model(network, kind, values),
        *_data(file, values),
        *(_simmim(values) if pretrains else _augmentation(values)),
        f"global_batch={global_batch}",
        f"max_device_batch={values['DATA.BATCH_SIZE']}",
        *_optimizer(values),
        *_schedule(file, values),
        f"trainer.max_epochs={values['TRAIN.EPOCHS']}",
        f"trainer.gradient_clip_val={values['TRAIN.CLIP_GRAD']}",
        f"seed={values['SEED']}",
    ]


def _model(network: dict[str, Any], kind: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Chooses the variant with these hyper-parameters, or sets each of them if there is none."""
    parameters = {
        **kind,
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
    variant_name = next((name for name in list_models() if _is_variant(name, parameters)), None)
    drop = f"model.drop_path_rate={values['MODEL.DROP_PATH_RATE']}"
    if variant_name is not None:
        return [f"model={variant_name}", drop]
    base = next(name for name in BASES if _is_variant(name, kind))
    return [
        f"model={base}",
        *(f"model.{key}={_without_spaces(value)}" for key, value in parameters.items() if key not in kind),
        drop,
    ]


def _is_variant(name: str, parameters: dict[str, Any]) -> bool:
    """Returns whether a variant has these hyper-parameters."""
    variant, given = model_config(name), SwinConfig(**parameters)
    return all(getattr(variant, key) == getattr(given, key) for key in parameters)


def _data(file: str, values: dict[str, Any]) -> list[str]:
    name = str(values["DATA.DATASET"]).lower()
    if name not in DATASETS:
        raise UserError(f"{file}: DATA.DATASET={name} is unknown{did_you_mean(name, DATASETS)}")
    matches_preset = values["TEST.CROP"] == (values["DATA.IMG_SIZE"] < 384) and values["DATA.INTERPOLATION"] == "bicubic"
    resize_mode = "crop" if values["TEST.CROP"] else "stretch"
    explicit = [f"data.resize_mode={resize_mode}", f"data.interpolation={values['DATA.INTERPOLATION']}"]
    preset = ["preset=official"] if matches_preset else ["preset=null", *explicit]
    return [f"data={DATASETS[name]}", *preset]


def _augmentation(values: dict[str, Any]) -> list[str]:
    policy = values["AUG.AUTO_AUGMENT"]
    mixing = "imagenet" if values["AUG.MIXUP"] or values["AUG.CUTMIX"] else "none"
    mixing_values = [
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
        *(mixing_values if mixing == "imagenet" else []),
        f"task.label_smoothing={values['MODEL.LABEL_SMOOTHING']}",
    ]


def _simmim(values: dict[str, Any]) -> list[str]:
    """Returns task and augmentation of a pre-training by SimMIM, whose augmentation no key of the file changes."""
    target = "MODEL.SIMMIM.NORM_TARGET"
    return [
        "task=simmim",
        f"task.mask_patch_size={values['DATA.MASK_PATCH_SIZE']}",
        f"task.mask_ratio={values['DATA.MASK_RATIO']}",
        f"task.norm_target_size={values[f'{target}.PATCH_SIZE'] if values[f'{target}.ENABLE'] else 'null'}",
        "augment=simmim",
        "mixing=none",
    ]


def _optimizer(values: dict[str, Any]) -> list[str]:
    decay = values["TRAIN.LAYER_DECAY"]
    return [
        "optimizer=adamw_imagenet",
        f"optimizer.lr={values['TRAIN.BASE_LR']}",
        f"optimizer.weight_decay={values['TRAIN.WEIGHT_DECAY']}",
        f"optimizer.betas={_without_spaces(values['TRAIN.OPTIMIZER.BETAS'])}",
        f"optimizer.eps={values['TRAIN.OPTIMIZER.EPS']}",
        *([f"optimizer.layer_decay={decay}"] if decay != 1.0 else []),
    ]


def _schedule(file: str, values: dict[str, Any]) -> list[str]:
    base = check_value(f"{file}: TRAIN.BASE_LR", values["TRAIN.BASE_LR"], PositiveFloat)
    kind = values["TRAIN.LR_SCHEDULER.NAME"]
    after_warmup = {
        "cosine": [
            f"schedule.min_lr_ratio={_ratio(values['TRAIN.MIN_LR'], base)}",
            f"schedule.cosine_after_warmup={str(values['TRAIN.LR_SCHEDULER.WARMUP_PREFIX']).lower()}",
        ],
        "linear": ["schedule.min_lr_ratio=0.01"],  # lr_min_rate in its build_scheduler
        "step": [
            f"schedule.every_epochs={values['TRAIN.LR_SCHEDULER.DECAY_EPOCHS']}",
            f"schedule.gamma={values['TRAIN.LR_SCHEDULER.DECAY_RATE']}",
        ],
        "multistep": [
            f"schedule.epochs={_without_spaces(values['TRAIN.LR_SCHEDULER.MULTISTEPS'])}",
            f"schedule.gamma={values['TRAIN.LR_SCHEDULER.GAMMA']}",
        ],
    }
    if kind not in after_warmup:
        raise UserError(f"{file}: TRAIN.LR_SCHEDULER.NAME={kind} is unknown{did_you_mean(str(kind), after_warmup)}")
    return [
        f"schedule={kind}",
        f"schedule.warmup_epochs={values['TRAIN.WARMUP_EPOCHS']}",
        f"schedule.warmup_lr_ratio={_ratio(values['TRAIN.WARMUP_LR'], base)}",
        *after_warmup[kind],
    ]


def _ratio(learning_rate: float, base: float) -> float:
    """Returns a learning rate relative to the base learning rate, without the rounding noise of the division."""
    return float(f"{learning_rate / base:.12g}")


def _without_spaces(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value).replace(" ", "")
