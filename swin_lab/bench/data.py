"""Images per second of the data pipeline: by step on one core, against timm's transform, and of the whole loader."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from statistics import median
from typing import Any

import torch
from lightning import Trainer
from PIL import Image
from torchvision.transforms import v2

from swin_lab.bench.timing import ratio
from swin_lab.data.augment import TimmAugment
from swin_lab.data.decoding import UNREADABLE
from swin_lab.data.device import StagedTransform
from swin_lab.data.loading import TransformedImages, collate
from swin_lab.data.sampling import SampleIndex
from swin_lab.data.transforms import random_state
from swin_lab.errors import UserError
from swin_lab.run.components import Data
from swin_lab.run.training import Training, build_data_module

READ, DECODE, COLLATE, COPY = "read", "decode", "collate", "copy to device"
DEVICE_STAGE = "normalise and erase"


@dataclass(frozen=True)
class StepTime:
    """Contains the time of a step of the pipeline."""

    name: str
    seconds: float
    """CPU seconds per image, the median over rounds; for the copy to a GPU, its time on the GPU."""
    share: float
    """Of the sum of all steps."""


@dataclass(frozen=True)
class CoreSpeed:
    """Contains what one core does."""

    steps: list[StepTime]
    bottleneck: str
    """The step that takes longest."""
    per_core: float
    """Images per second of one core: reading, decoding and transforming as a worker does, in CPU time."""
    decode_and_transform: float
    """Images per second of decoding and transforming alone, which timm's are compared with."""
    timm: float | None
    """Images per second of timm's training transform on images decoded by Pillow. If None, there are no encoded images."""
    ours_over_timm: float | None
    """The median of the ratios within rounds."""
    timm_failed: int
    """Images on which timm's transform raised an error, and which are not counted for it."""


def measure_core(training: Training, images: int, rounds: int) -> CoreSpeed:
    """Measures the steps of the training pipeline in this process, on the same images in every round, without a cache.

    Every round measures each step, then the whole sample as a worker makes it, then timm's transform; all have the random
    numbers of the same seeds.

    Args:
        training: the components of the run.
        images: number of images, evenly spaced in the training set.
        rounds: rounds.

    Raises:
        UserError: an image cannot be decoded.
    """
    module = training.data_module
    assert module.train_transform is not None
    source = training.data.source.train
    indices = torch.linspace(0, len(source.labels) - 1, min(images, len(source.labels))).round().int().tolist()
    steps = _transform_steps(module.train_transform)
    dataset = TransformedImages(source, module.train_transform, training.config.seed, module.train_decode)
    official = _timm_transform(training)
    spent: dict[str, list[float]] = {name: [] for name in (READ, DECODE, *steps, COLLATE)}
    whole, ours, theirs = [], [], []
    failed = 0
    _warm_up(dataset, indices, official)
    for number in range(rounds):
        encoded, elapsed = _timed_reads(source, indices)
        spent[READ].append(elapsed)
        times = _timed_steps(encoded, module.train_decode, steps, number)
        for name, seconds in times.items():
            spent[name].append(seconds)
        ours.append(sum(times.values()))
        samples, elapsed = _timed_samples(dataset, indices, number)
        whole.append(elapsed)
        spent[COLLATE].append(_timed_collate(samples, training.batching.device_batch))
        if official is not None and isinstance(encoded[0], bytes):
            elapsed, failures = _timed_timm(encoded, official, number)
            theirs.append(elapsed)
            failed += failures
    medians = {name: median(values) for name, values in spent.items()}
    if torch.cuda.is_available():
        medians[COPY] = _timed_copy(samples, training.batching.device_batch)
    total = sum(medians.values())
    table = [StepTime(name, value, value / total) for name, value in medians.items()]
    return CoreSpeed(
        table,
        max(table, key=lambda step: step.seconds).name,
        1 / median(whole),
        1 / median(ours),
        1 / median(theirs) if theirs else None,
        ratio(ours, theirs) if theirs else None,
        failed,
    )


def measure_loader(training: Training, workers: Sequence[int], batches: int, trainer: Trainer) -> dict[int, float]:
    """Measures the whole loader in wall time, for several numbers of worker processes.

    Args:
        training: the components of the run.
        workers: numbers of worker processes.
        batches: batches after the first one, which starts the workers; epochs follow each other if one has fewer.
        trainer: Lightning's Trainer, which the data module asks for processes and devices.

    Returns:
        Number of workers -> images per second.
    """
    found = {}
    for number in workers:
        loader = replace(training.data.loader, num_workers=number)
        module = build_data_module(
            training.config, training.batching, Data(training.data.source, loader), training.task, training.preprocessing
        )
        module.trainer = trainer
        found[number] = _loader_speed(module.train_dataloader(), batches)
    return found


def _loader_speed(loader: Any, batches: int) -> float:
    seconds, images, left = 0.0, 0, batches
    while left > 0:
        iterator = iter(loader)
        first = next(iterator)
        if first.wrong is not None:
            raise UserError(first.wrong)
        started_at = time.perf_counter()
        for batch in iterator:
            images += len(batch.labels)
            left -= 1
            if left == 0:
                break
        seconds += time.perf_counter() - started_at
        if images == 0:  # An epoch of one batch has none after its first.
            raise UserError("an epoch has one batch; lower global_batch to measure the loader")
    return images / seconds


def _transform_steps(transform: Any) -> dict[str, Callable[[Any], Any]]:
    """Returns the steps of a transform, named by their classes; one that is not composed is a single step.

    The stage that runs on the device in a training is a step as well, here on the CPU.
    """
    steps: dict[str, Callable[[Any], Any]] = {}
    for part in _parts(transform):
        name = DEVICE_STAGE if isinstance(part, StagedTransform) else type(part).__name__
        steps[name if name not in steps else f"{name} {len(steps)}"] = part
    return steps


def _parts(transform: Any) -> list[Any]:
    if isinstance(transform, StagedTransform):
        # Without a worker's transform, a staged one applies its second stage only.
        second = [StagedTransform(_unchanged, transform.device)] if transform.device is not None else []
        return [*_parts(transform.worker), *second]
    if isinstance(transform, v2.Compose):
        return [part for inner in transform.transforms for part in _parts(inner)]
    return [transform]


def _unchanged(pixels: Any) -> Any:
    return pixels


def _timm_transform(training: Training) -> Callable[[Any], Any] | None:
    """Returns timm's own training transform, with the settings of the configured augmentation or else the official ones."""
    from timm.data.transforms_factory import create_transform

    node = training.config.augment
    official = {"img_size": tuple(training.preprocessing.img_size), "mean": training.preprocessing.mean}
    own = {key: value for key, value in node.items() if key != "_target_"} if "TimmAugment" in str(node.get("_target_")) else {}
    if len(training.preprocessing.mean) != 3:
        return None
    settings = TimmAugment(
        **official | {key: value for key, value in own.items() if value is not None or key == "auto_augment"}
    )
    transform: Callable[[Any], Any] = create_transform(
        settings.img_size,
        is_training=True,
        scale=settings.scale,
        ratio=settings.ratio,
        hflip=settings.hflip,
        vflip=settings.vflip,
        color_jitter=settings.color_jitter or 0.0,
        auto_augment=settings.auto_augment,
        interpolation=settings.interpolation,
        mean=settings.mean,
        std=training.preprocessing.std,
        re_prob=settings.erase,
        re_mode=settings.erase_mode,
        re_count=settings.erase_count,
    )
    return transform


def _warm_up(dataset: TransformedImages, indices: list[int], official: Callable[[Any], Any] | None) -> None:
    for index in indices[:4]:
        sample = dataset[SampleIndex(0, index)]
        if isinstance(sample, str):
            raise UserError(f"cannot decode image {sample}\nRemove it, or choose other data")
        if official is not None:
            official(Image.new("RGB", (64, 64)))


def _timed_reads(source: Any, indices: list[int]) -> tuple[list[Any], float]:
    started_at = time.process_time()
    encoded = [source.encoded(index) for index in indices]
    return encoded, (time.process_time() - started_at) / len(indices)


def _timed_steps(
    encoded: list[Any], decode: Callable[[Any], Any], steps: dict[str, Callable[[Any], Any]], seed: int
) -> dict[str, float]:
    """Returns the CPU seconds of decoding and of every transform per image."""
    spent = dict.fromkeys((DECODE, *steps), 0.0)
    for i, content in enumerate(encoded):
        with random_state(seed * len(encoded) + i):
            before = time.process_time()
            value = decode(content)
            for name, step in ((DECODE, None), *steps.items()):
                value = value if step is None else step(value)
                now = time.process_time()
                spent[name] += now - before
                before = now
    return {name: seconds / len(encoded) for name, seconds in spent.items()}


def _timed_samples(dataset: TransformedImages, indices: list[int], epoch: int) -> tuple[list[Any], float]:
    started_at = time.process_time()
    samples = [dataset[SampleIndex(epoch, index)] for index in indices]
    return samples, (time.process_time() - started_at) / len(indices)


def _timed_collate(samples: list[Any], batch: int) -> float:
    """Returns the CPU seconds per image of collating batches as large as the images allow."""
    size = min(batch, len(samples))
    started_at = time.process_time()
    for start in range(0, len(samples) - size + 1, size):
        collate(samples[start : start + size])
    return (time.process_time() - started_at) / (len(samples) // size * size)


def _timed_timm(encoded: list[bytes], transform: Callable[[Any], Any], seed: int) -> tuple[float, int]:
    """Returns the CPU seconds per image of Pillow's decoder and timm's transform, and on how many images that fails."""
    spent, done = 0.0, 0
    for i, content in enumerate(encoded):
        with random_state(seed * len(encoded) + i):
            before = time.process_time()
            try:
                transform(Image.open(BytesIO(content)).convert("RGB"))
            except UNREADABLE:  # timm asks Pillow for 0 bits at the highest magnitude of Posterize
                continue
            spent += time.process_time() - before
            done += 1
    return spent / max(1, done), len(encoded) - done


def _timed_copy(samples: list[Any], batch: int) -> float:
    """Returns the seconds per image of copying a pinned batch to the GPU."""
    images = collate(samples[:batch]).images.pin_memory()
    images.to("cuda")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(10):
        images.to("cuda", non_blocking=True)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000 / 10 / len(images)
