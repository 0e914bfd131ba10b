"""Identification of a result: code, versions, machine and data."""

import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import torch
from lightning import Trainer

import swin_lab
from swin_lab.data import ImageSource, cores, fingerprint
from swin_lab.record import RESULTS, DataSet, Flat, Git, Hardware, read_record
from swin_lab.run.memory import total_memory
from swin_lab.run.sweep.folder import Membership, membership

PACKAGES = ("torchvision", "lightning", "hydra-core", "torchmetrics", "timm")
CPU_MODEL = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class RunIdentity:
    """Names a run, the same after every resume."""

    run_dir: Path
    name: str
    """Within a sweep, the overrides in which its jobs differ; else the name of the configuration and that of the directory."""
    id: str
    """For services that number runs; the first process knows it."""
    sweep: Membership | None
    """The sweep that the run belongs to. If None, it belongs to none."""
    earlier: Flat | None
    """The record that the processes before have left. If None, the run begins."""

    @property
    def attempts(self) -> int:
        """Returns how many processes have run before."""
        return int(self.earlier["run.attempts"]) if self.earlier else 0

    @property
    def group(self) -> str | None:
        """Returns the name of the sweep; None outside sweeps."""
        return None if self.sweep is None else self.sweep.folder.name


def identify(run_dir: Path, name: str) -> RunIdentity:
    """Identifies the run in a directory.

    Args:
        run_dir: the run directory.
        name: name of the run in the configuration.
    """
    earlier = read_record(run_dir) if (run_dir / RESULTS).is_file() else None
    sweep = membership(run_dir)
    differs = " ".join(sweep.differs) if sweep is not None else ""
    return RunIdentity(
        run_dir, differs or f"{name}/{run_dir.name}", earlier["run.id"] if earlier else uuid4().hex[:8], sweep, earlier
    )


def versions() -> dict[str, str]:
    """Returns the versions of swin_lab, Python and the libraries that results depend on."""
    own = {"swin_lab": swin_lab.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return own | {package: version(package) for package in PACKAGES}


def cpu_name() -> str:
    """Returns the name of the processor, as Linux knows it or else as Python does."""
    info = Path("/proc/cpuinfo")
    found = CPU_MODEL.search(info.read_text()) if info.is_file() else None
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine()


def hardware(trainer: Trainer) -> Hardware:
    """Describes this machine and the processes of a run."""
    devices = range(trainer.num_devices) if trainer.strategy.root_device.type == "cuda" else ()
    return Hardware(
        cpu=cpu_name(),
        cores=cores(),
        memory_bytes=total_memory(),
        gpus=[torch.cuda.get_device_name(index) for index in devices],
        processes=trainer.world_size,
        nodes=trainer.num_nodes,
        system=platform.platform(),
    )


def describe_data(source: ImageSource) -> DataSet:
    """Returns sizes and fingerprints of the training and the validation set."""
    return DataSet(
        source=type(source).__name__,
        classes=len(source.class_names),
        train_images=len(source.train.labels),
        val_images=len(source.val.labels),
        train_fingerprint=fingerprint(source.train),
        val_fingerprint=fingerprint(source.val),
    )


def checkout() -> Git:
    """Returns the commit of swin_lab's checkout and whether files differ from it; nothing outside a git checkout."""
    code = Path(swin_lab.__file__).parent
    try:
        return Git(commit=_git(code, "rev-parse", "HEAD"), dirty=bool(_git(code, "status", "--porcelain")))
    except (OSError, subprocess.CalledProcessError):
        return Git()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
