"""Default values of the official code (config.py of github.com/microsoft/Swin-Transformer at f82860b)."""

from typing import Any

from swin_lab.validation import PositiveInt

DEFAULTS: dict[str, Any] = {
    "DATA.BATCH_SIZE": 128,
    "DATA.DATASET": "imagenet",
    "DATA.IMG_SIZE": 224,
    "DATA.INTERPOLATION": "bicubic",
    "DATA.MASK_PATCH_SIZE": 32,
    "DATA.MASK_RATIO": 0.6,
    "MODEL.TYPE": "swin",
    "MODEL.NAME": "swin_tiny_patch4_window7_224",
    "MODEL.LABEL_SMOOTHING": 0.1,
    "MODEL.DROP_PATH_RATE": 0.1,
    "MODEL.SIMMIM.NORM_TARGET.ENABLE": False,
    "MODEL.SIMMIM.NORM_TARGET.PATCH_SIZE": 47,
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
"""Values of keys that a file leaves out, as in config.py of the official code."""

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
"""Default values of the keys of MODEL.SWIN, MODEL.SWINV2 and MODEL.SWIN_MLP."""

OF_ATTENTION = ("QKV_BIAS", "PRETRAINED_WINDOW_SIZES")
"""Those of these keys that MODEL.SWIN_MLP does not have."""

TYPES: dict[str, Any] = {
    "TRAIN.LR_SCHEDULER.MULTISTEPS": tuple[PositiveInt, ...],
    "TRAIN.OPTIMIZER.BETAS": tuple[float, float],
    "AUG.AUTO_AUGMENT": str | None,
    "DEPTHS": tuple[PositiveInt, ...],
    "NUM_HEADS": tuple[PositiveInt, ...],
    "PRETRAINED_WINDOW_SIZES": tuple[int, ...],
}
"""Types of values whose type is not that of their default."""

SIMMIM_PRETRAINING = "simmim_pretrain"
"""MODEL.NAME of files that the official code's main_simmim_pt.py reads; no other key tells that they are for another task."""

PUBLISHED_BATCH: dict[str, int] = {
    SIMMIM_PRETRAINING: 2048,
    "simmim_finetune": 2048,
    **{f"swin_{size}_patch4_window7_224_22k": 4096 for size in ("tiny", "small", "base", "large")},
    **{f"swinv2_{size}_patch4_window12_192_22k": 4096 for size in ("base", "large")},
    **{f"swin_{size}_patch4_window7_224": 1024 for size in ("tiny", "small", "base")},
    "swin_tiny_c24_patch4_window8_256": 1024,
    **{f"swin_mlp_tiny_c{channels}_patch4_window8_256": 1024 for channels in (24, 12, 6)},
    "swin_mlp_base_patch4_window7_224": 1024,
    **{f"swin_{size}_patch4_window7_224_22kto1k_finetune": 1024 for size in ("tiny", "small", "base", "large")},
    **{f"swin_{size}_patch4_window12_384_22kto1k_finetune": 1024 for size in ("base", "large")},
    "swin_base_patch4_window12_384_finetune": 1024,
    **{f"swinv2_{size}_patch4_window{window}_256": 1024 for size in ("tiny", "small", "base") for window in (8, 16)},
    **{f"swinv2_{size}_patch4_window12to16_192to256_22kto1k_ft": 1024 for size in ("base", "large")},
    **{f"swinv2_{size}_patch4_window12to24_192to384_22kto1k_ft": 1024 for size in ("base", "large")},
}
"""MODEL.NAME of a published file -> images per update over all GPUs, which no key of the file tells.

4096 is in the comments of the files for ImageNet-22k, 2048 in get_started_simmim.md (16 GPUs with 128 images); 1024 follows
from the commands in get_started.md: 8 GPUs with 128 images, or with 64 images and two accumulation steps.
"""

IGNORED_KEYS = (
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
"""Keys that affect where and how a run is computed; a recipe does not depend on them."""
