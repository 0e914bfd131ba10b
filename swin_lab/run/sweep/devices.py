"""The devices that the jobs of a sweep share, and how many run at the same time."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from swin_lab.errors import UserError
from swin_lab.run.sweep.launch import Processes, Runner
from swin_lab.run.sweep.settings import SweepConfig
from swin_lab.run.sweep.slurm import Submitit
from swin_lab.run.sweep.space import Space


def build_runner(config: Mapping[str, Any], sweep: SweepConfig, space: Space, path: Path) -> Runner:
    """Builds what runs the jobs, as many at the same time as the devices allow.

    Raises:
        UserError: sweep.jobs is more than that, or SLURM is not available.
    """
    trainer = config["trainer"]
    on_cpu = trainer.get("accelerator") == "cpu"
    gpus = visible_gpus(torch.cuda.device_count()) if not on_cpu else []
    swept = any(parameter.key.lstrip("+") in ("trainer", "trainer.devices") for parameter in space.parameters)
    devices = trainer.get("devices")
    all_of_them = swept or not isinstance(devices, int) or isinstance(devices, bool) or devices < 1
    if sweep.executor != "local":
        if all_of_them and not on_cpu:
            raise UserError(f"sweep.executor={sweep.executor} asks SLURM for GPUs; trainer.devices={devices} must be a number")
        return Submitit(sweep, path / "submitit", 0 if on_cpu else devices)
    if not gpus:
        return Processes(sweep.jobs or 1)
    each = len(gpus) if all_of_them else devices
    at_once = len(gpus) // each or 1  # A job that wants more GPUs than there are says so itself.
    if sweep.jobs is not None and sweep.jobs > at_once:
        raise UserError(f"sweep.jobs={sweep.jobs}: {len(gpus)} GPUs have room for {at_once} jobs with {each} GPUs each")
    return Processes(sweep.jobs or at_once, gpus, each) if at_once > 1 else Processes(1)


def visible_gpus(count: int) -> list[str]:
    """Returns the GPUs of this machine as CUDA_VISIBLE_DEVICES names them."""
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given[:count] if given else [str(i) for i in range(count)]
