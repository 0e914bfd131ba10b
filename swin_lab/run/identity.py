"""Identification of a result: code, versions, machine and data."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import swin_lab
from swin_lab.data import ImageSource, fingerprint

PACKAGES = ("torchvision", "lightning", "hydra-core", "torchmetrics", "timm")


def identity() -> dict[str, Any]:
    """Returns versions, device and the commit of the code that runs."""
    return {
        "git": _commit(),
        "versions": {"swin_lab": swin_lab.__version__, "python": platform.python_version(), "torch": torch.__version__}
        | {package: version(package) for package in PACKAGES},
        "machine": {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine(),
            "devices_visible": torch.cuda.device_count(),
            "cpu_threads": torch.get_num_threads(),
            "system": platform.platform(),
        },
    }


def describe_data(source: ImageSource) -> dict[str, Any]:
    """Returns sizes and fingerprints of the training and the validation set."""
    return {
        "source": type(source).__name__,
        "classes": len(source.class_names),
        "train_images": len(source.train.labels),
        "val_images": len(source.val.labels),
        "train_fingerprint": fingerprint(source.train),
        "val_fingerprint": fingerprint(source.val),
    }


def _commit() -> dict[str, Any] | None:
    """Returns the commit of the checkout and whether files differ from it. Outside a git checkout, returns None."""
    code = Path(swin_lab.__file__).parent
    try:
        commit = _git(code, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(code, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
