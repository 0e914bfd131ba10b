"""All checks of the machine for a configuration, without its data."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from swin_lab.data.datamodule import default_workers
from swin_lab.run.batching import split_batch
from swin_lab.run.doctor.devices import check_gpus, check_threads
from swin_lab.run.doctor.findings import Finding
from swin_lab.run.doctor.software import check_software
from swin_lab.run.doctor.storage import check_disk, check_memory
from swin_lab.run.preflight import Needs, loader_needs

USUAL_SIZE = 224
CHANNELS = 3


def examine(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Yields the results of all checks.

    Args:
        config: conf/train.yaml, composed.

    Raises:
        UserError: the global batch cannot be divided among the devices.
    """
    needs = needs_without_data(config)
    yield from check_software()
    yield from check_gpus()
    yield check_threads(needs.workers)
    yield from check_memory(needs)
    yield from check_disk(Path(config["out"]).expanduser().absolute())


def needs_without_data(config: Mapping[str, Any]) -> Needs:
    """Estimates what the loaders of a configuration need: images of the size of the model, which the device normalises."""
    devices = number_of_devices(config["trainer"].get("devices", "auto"))
    limit = config["max_device_batch"]
    nodes = int(config["trainer"].get("num_nodes", 1))
    batching = split_batch(config["global_batch"], devices * nodes, limit if isinstance(limit, int) else None)
    side = config["model"].get("img_size") or config["img_size"] or USUAL_SIZE
    height, width = side if isinstance(side, list | tuple) else (side, side)
    given = config["data"].get("num_workers")
    workers = 0 if config["data"].get("cache") == "device" else default_workers(devices) if given is None else given
    sizes = [batching.device_batch * CHANNELS * height * width] * 2
    return loader_needs([workers] * 2, sizes, devices, at_once="val_check_interval" in config["trainer"])


def number_of_devices(devices: object) -> int:
    """Returns how many devices a value of `trainer.devices` means on this machine: auto and -1 are all GPUs."""
    if isinstance(devices, list | tuple):
        return max(1, len(devices))
    number = int(devices) if isinstance(devices, int | str) and str(devices).isdigit() else 0
    return number or max(1, torch.cuda.device_count())
