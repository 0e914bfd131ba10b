"""The components of a training run from overrides of train.py, built as training builds them, without a run directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import seed_everything

from swin_lab.errors import UserError
from swin_lab.run.checks import check_given, check_settings
from swin_lab.run.compose import composed
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.settings import TrainConfig
from swin_lab.run.trainer import find_launch
from swin_lab.run.training import Training, build_training


def build_from(overrides: Sequence[str], config_dir: Path | None, trainer: dict[str, Any]) -> Training:
    """Builds the components of `python train.py OVERRIDES` on one device.

    Args:
        overrides: of train.py.
        config_dir: a directory with further configuration files.
        trainer: keys of the `trainer` node that replace the given ones.

    Raises:
        UserError: a value is invalid, or the run would use several devices.
    """
    values = composed(overrides, config_dir=config_dir)
    check_given(values)
    check_settings(values)  # of the given trainer too
    values["name"] = str(values["name"] or "bench")
    values["trainer"] = values["trainer"] | trainer
    config = build_dataclass("", TrainConfig, values)
    seed_everything(config.seed, verbose=False)
    launch = find_launch(config.trainer, config.precision)
    if launch.world_size > 1:
        raise UserError(f"trainer.devices={launch.world_size}: a benchmark uses one device; set trainer.devices=1")
    return build_training(config, launch, values)
