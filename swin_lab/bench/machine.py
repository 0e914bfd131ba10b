"""The machine and the versions behind a result."""

import os
import platform
import shlex
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from swin_lab.data import cores
from swin_lab.run.identity import checkout, cpu_name, versions

PACKAGES = ("torch", "triton", "timm", "torchvision", "transformers", "pillow", "numpy")


def describe_machine() -> dict[str, Any]:
    """Returns processor, GPU, memory, versions, commit, command line and time."""
    git = checkout()
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "gpu_memory_gib": _gpu_memory(),
        "system": platform.platform(),
        "versions": versions() | {name: _version(name) for name in PACKAGES},
        "git": None if git.commit is None else {"commit": git.commit, "changed": git.dirty},
        "command": shlex.join(["swin-lab", *sys.argv[1:]]),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def device_name(device: str) -> str:
    """Returns the name of the GPU, or of the processor."""
    return torch.cuda.get_device_name() if device == "cuda" else cpu_name()


def _gpu_memory() -> float | None:
    return round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
