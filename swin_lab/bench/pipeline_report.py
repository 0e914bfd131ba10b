"""What `swin-lab bench data` and `bench run` show: tables, charts and numbers."""

from collections.abc import Mapping
from dataclasses import asdict

from swin_lab.bench.data import CoreSpeed
from swin_lab.bench.machine import device_name
from swin_lab.bench.output import Result, Shown
from swin_lab.bench.run import RunSpeed
from swin_lab.data import cores
from swin_lab.report.bars import Bar, short_number
from swin_lab.run.training import Training


def data_result(training: Training, core: CoreSpeed, loader: Mapping[int, float], images: int, rounds: int) -> Result:
    """Returns what is shown of the data pipeline.

    Args:
        training: the components whose pipeline was measured.
        core: the speed of one core.
        loader: number of workers -> images per second of the whole loader.
        images: number of measured images.
        rounds: over which medians were taken.
    """
    header = [
        ("measures", f"{_data(training)}, {_augmentation(training)}, batch {training.batching.device_batch}"),
        ("on", f"{device_name('cpu')}, {cores()} cores"),
        ("time", f"steps: CPU time of one thread, {rounds} interleaved rounds of {images} images; loader: wall time"),
    ]
    steps = [[step.name, f"{step.seconds * 1000:.3f}", f"{step.share:.0%}", f"{1 / step.seconds:,.0f}"] for step in core.steps]
    notes = [f"bottleneck: {core.bottleneck}", f"one core, read to tensor as in a worker: {core.per_core:,.0f} images/s"]
    if core.timm is not None:
        failed = f", which fails on {core.timm_failed} images" if core.timm_failed else ""
        notes.append(
            f"decode and transform: {core.decode_and_transform:,.1f} images/s, Pillow and timm's {core.timm:,.1f}{failed}: "
            f"{core.ours_over_timm:.2f}x"
        )
    tables = [
        Shown("One core, by step", ["step", "ms per image", "share", "images/s"], steps, notes),
        Shown(
            "Whole loader, wall time",
            ["workers", "images/s", "per worker"],
            [[str(number), f"{speed:,.1f}", f"{speed / max(1, number):,.1f}"] for number, speed in loader.items()],
            ["0 workers: the main process loads; other processes of the machine change these figures"],
        ),
    ]
    by_step = [Bar(step.name, step.seconds * 1000, step.seconds * 1000, step.seconds * 1000) for step in core.steps]
    values = {"core": asdict(core), "loader": {str(number): speed for number, speed in loader.items()}, "images": images}
    return Result("bench data", header, tables, [("one core, by step", by_step)], "ms per image", values | _settings(training))


def run_result(training: Training, speed: RunSpeed, updates: int, rounds: int) -> Result:
    """Returns what is shown of a training run.

    Args:
        training: its components.
        speed: the result.
        updates: timed in each of both.
        rounds: times that both were run.
    """
    network, launch = training.model.network, training.launch
    workers = training.data_module.workers_on(launch.devices_per_node)
    device = "cuda" if launch.trainer.strategy.root_device.type == "cuda" else "cpu"
    header = [
        ("compares", f"training of a {type(network).__name__} on {_data(training)} with the same on one resident batch"),
        (
            "on",
            f"{device_name(device)}, {launch.precision}, batch {training.batching}, {workers} workers, {cores()} cores",
        ),
        ("time", f"wall time of {updates} updates, {rounds} interleaved rounds; medians"),
    ]
    rows = [
        ["real loader", f"{short_number(speed.real.median)}", _range(speed.real.low, speed.real.high)],
        ["resident batch", f"{short_number(speed.resident.median)}", _range(speed.resident.low, speed.resident.high)],
    ]
    notes = [
        f"the loader costs {speed.loader_share:.1%} of the time; {speed.waiting_share:.1%} of it is waiting for batches",
        f"bottleneck: {speed.bottleneck}",
        f"first update, with compilation if there is any: {speed.first_update:.1f} s",
    ]
    if speed.peak_bytes is not None:
        notes.append(f"peak memory: {speed.peak_bytes / 2**20:,.0f} MiB")
    tables = [Shown("Training", ["data", "images/s", "quartiles"], rows, notes)]
    bars = [
        Bar("real loader", speed.real.median, speed.real.low, speed.real.high, emphasised=True),
        Bar("resident batch", speed.resident.median, speed.resident.low, speed.resident.high),
    ]
    values = {"run": asdict(speed), "updates": updates, "workers": workers, "precision": launch.precision}
    return Result("bench run", header, tables, [("training", bars)], "images/s", values | _settings(training))


def _range(low: float, high: float) -> str:
    return f"{short_number(low)} to {short_number(high)}"


def _data(training: Training) -> str:
    source = training.data.source
    return f"{type(source).__name__} ({len(source.train.labels):,} training images)"


def _augmentation(training: Training) -> str:
    node = training.config.augment
    height, width = training.preprocessing.img_size
    target = str(node.get("_target_", "transforms")).rpartition(".")[2]
    policy = f" {node['auto_augment']}" if node.get("auto_augment") else ""
    return f"{target}{policy} to {height}x{width}"


def _settings(training: Training) -> dict[str, object]:
    config = training.config
    return {"data": config.data, "augment": config.augment, "model": config.model, "batching": str(training.batching)}
