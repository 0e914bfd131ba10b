"""Compares the augmentation of data.loader=dali with timm's on Pillow: random numbers, pixels, and speed.

    python benchmarks/dali_augmentation.py FOLDER [--draws 10000] [--images 240] [--rounds 5] [--device cuda]

It prints three tables. Draws: how often timm and DALI apply each operation of rand-m9-mstd0.5-inc1, and at which levels.
Pixels: the difference of each operation from Pillow at the same level, on images of 224x224 pixels, and of the whole
augmentation without random erasing, of values from 0 to 255. Speed: images per second, interleaved, the median of all rounds;
on the host of CPU time with one thread, and with --device cuda also DALI's on the GPU, in wall time with a thread on each core.
It needs the extra `dali`.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import nvidia.dali
import PIL
import timm
import torch
from PIL import Image
from torchvision.transforms import v2

from swin_lab.data import TimmAugment, cores
from swin_lab.data.dali.loader import DaliLoader
from swin_lab.data.dali.parameters import AMOUNTS, Augmentation, Kind
from swin_lab.data.decoding import decode
from swin_lab.data.loading import WaitingTime, sample_seed
from swin_lab.data.sampling import EvalSampler, SampleIndex
from swin_lab.data.transforms import Transform, random_state, train_transform
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

SIDE, BATCH, GPU_BATCH = 224, 60, 128
GPU_PASS = 100 * GPU_BATCH
"""Images of a pass whose speed on a GPU is measured."""
HOST, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Files:
    """Provides encoded images in memory."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents
        self.labels = np.zeros(len(contents), dtype=np.int64)

    def encoded(self, index: int) -> bytes:
        """Returns the bytes of a file."""
        return self.contents[index]

    def name(self, index: int) -> str:
        """Returns the number of a file."""
        return str(index)


def main() -> None:
    arguments = parse_arguments()
    device = GPU if arguments.device == "cuda" else HOST
    torch.set_num_threads(1)
    files = sorted(file for file in arguments.folder.rglob("*") if file.suffix.lower() in (".jpeg", ".jpg"))[: arguments.images]
    images = Files([file.read_bytes() for file in files])
    augment = TimmAugment(img_size=SIDE, mean=IMAGENET_MEAN, erase=0.0)
    print_draws(augment, arguments.draws)
    print_pixels(augment, images, device)
    print_speed(augment, images, arguments.rounds)
    if device == GPU:
        print_gpu_speed(augment, images, arguments.rounds)
    print(f"\n{len(files)} images; DALI {nvidia.dali.__version__}, timm {timm.__version__}, Pillow {PIL.__version__}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Augmentation by DALI compared with timm's on Pillow.")
    parser.add_argument("folder", type=Path, help="folder with JPEG files")
    parser.add_argument("--draws", type=int, default=10_000, help="images whose augmentation is drawn (default: %(default)s)")
    parser.add_argument("--images", type=int, default=240, help="files that are read at most (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of the speed (default: %(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where DALI works (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device=cuda: torch sees no CUDA device; choose cpu")
    return arguments


def print_draws(augment: TimmAugment, draws: int) -> None:
    """Prints the table of draws; timm runs unchanged but for its operations, which note their names and levels."""
    applied: list[tuple[str, float]] = []
    drawn: list[tuple[str, float]] = []
    steps = deepcopy(augment.image_transforms)
    for op in steps[-1].ops:  # type: ignore[attr-defined]
        op.aug_fn = partial(_note, applied, op.name)
    augmentation = Augmentation(augment.image_transforms)
    same = 0
    for number in range(draws):
        start = len(applied)
        with random_state(number):
            image: Any = Image.new("RGB", (40, 30))
            for step in steps:
                image = step(image)
        with random_state(number):
            operations = augmentation.draw(30, 40).operations
        names = [name for name, _ in applied[start:]]
        ours = [
            (name if op.kind == kind_of(name) else op.kind.name, op.amount) for name, op in zip(names, operations, strict=True)
        ]
        drawn += ours
        same += ours == applied[start:]
    print(f"\n{draws:,} draws; the operations and levels of {same:,} are identical\n")
    print("| operation | share timm | share DALI | level timm | level DALI |\n|---|---:|---:|---:|---:|")
    for name in (op.name for op in steps[-1].ops):  # type: ignore[attr-defined]
        levels = [np.array([level for other, level in list_of if other == name]) for list_of in (applied, drawn)]
        shares = " | ".join(f"{len(values) / draws:.2%}" for values in levels)
        print(f"| {name} | {shares} | {' | '.join(f'{values.mean():.3f} ± {values.std():.3f}' for values in levels)} |")


def kind_of(name: str) -> Kind:
    """Returns DALI's operation for one of timm's; an inversion is a solarisation from 0."""
    stem = name.removesuffix("Increasing")
    return Kind.SOLARIZE if stem == "Invert" else AMOUNTS.get(stem, Kind.AFFINE)


def _note(applied: list[tuple[str, float]], name: str, image: Any, *level: float, fillcolor: Any, resample: Any) -> Any:
    applied.append((name, float(level[0]) if level else 0.0))
    return image


def print_pixels(augment: TimmAugment, images: Files, device: torch.device) -> None:
    """Prints the difference of each operation and of the whole augmentation, on the device."""
    whole = Image.Resampling.BICUBIC
    small = [encoded_png(decode(content).resize((SIDE, SIDE), whole)) for content in images.contents]
    print(f"\n| pixels, DALI on {device.type} | mean difference | greatest | share above 1 |\n|---|---:|---:|---:|")
    unscaled = TimmAugment(img_size=SIDE, mean=IMAGENET_MEAN, erase=0.0, scale=(1, 1), ratio=(1, 1), hflip=0.0)
    for op in unscaled.image_transforms[-1].ops:  # type: ignore[attr-defined]
        steps = deepcopy(unscaled.image_transforms)
        policy: Any = steps[-1]
        policy.ops, policy.num_layers = [deepcopy(op)], 1
        policy.ops[0].prob = 1.1  # always
        print(f"| {op.name} | {differences(steps, Files(small), device)} |")
    crop: list[Transform] = augment.image_transforms[:2]
    print(f"| random resized crop and flip | {differences(crop, images, device)} |")
    print(f"| crop, flip and RandAugment | {differences(augment.image_transforms, images, device)} |")


def encoded_png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def differences(steps: list[Transform], images: Files, device: torch.device) -> str:
    one, other = by_dali(steps, images, device)().astype(np.int16), by_pillow(steps, images)().astype(np.int16)
    absolute = np.abs(one - other)
    return f"{absolute.mean():.3f} | {absolute.max()} | {(absolute > 1).mean():.2%}"


def by_dali(steps: list[Transform], images: Files, device: torch.device = HOST) -> Callable[[], np.ndarray]:
    """Returns a function that loads all images with DALI: (N, 3, H, W) of uint8."""
    order = EvalSampler(len(images.labels), 0, 1)
    loader = dali_loader(steps, images, device, order, batch_size=BATCH, num_workers=0)
    return lambda: np.concatenate([batch.images.cpu().numpy() for batch in loader.batches()])


def dali_loader(
    steps: list[Transform], images: Files, device: torch.device, order: Any, *, batch_size: int, num_workers: int
) -> DaliLoader:
    """Returns a loader of the images that `order` yields as `SampleIndex`."""
    preprocessing = Preprocessing(
        img_size=(SIDE, SIDE), channels=3, crop_pct=1.0, interpolation="bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    return DaliLoader(
        images,
        train_transform(preprocessing, steps, []),
        seed=0,
        decode=decode,
        sampler=order,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
        waiting=WaitingTime(),
    )


def by_pillow(steps: list[Transform], images: Files) -> Callable[[], np.ndarray]:
    """Returns a function that loads all images with Pillow and timm: (N, 3, H, W) of uint8."""
    transform = v2.Compose(steps)

    def load() -> np.ndarray:
        loaded = []
        for index in range(len(images.labels)):
            with random_state(sample_seed(0, SampleIndex(0, index))):
                loaded.append(np.asarray(transform(decode(images.encoded(index)))).transpose(2, 0, 1))
        return np.stack(loaded)

    return load


def print_speed(augment: TimmAugment, images: Files, rounds: int) -> None:
    """Prints images per second of CPU time."""
    steps = augment.image_transforms
    loads = {
        "crop and flip, timm on Pillow": by_pillow(steps[:2], images),
        "crop and flip, DALI": by_dali(steps[:2], images),
        "with RandAugment, timm on Pillow": by_pillow(steps, images),
        "with RandAugment, DALI": by_dali(steps, images),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for load in loads.values():
        load()  # builds the graph
    for _ in range(rounds):
        for name, load in loads.items():
            start = time.process_time()
            load()
            seconds[name].append(time.process_time() - start)
    print("\n| one thread of the host | images/s | slowest to fastest |\n|---|---:|---:|")
    for name, measured in seconds.items():
        rates = sorted(len(images.labels) / each for each in measured)
        print(f"| {name} | {statistics.median(rates):.0f} | {rates[0]:.0f} to {rates[-1]:.0f} |")


def print_gpu_speed(augment: TimmAugment, images: Files, rounds: int) -> None:
    """Prints images per second of wall time with DALI on the GPU, without the first batch of a pass."""
    steps, count, threads = augment.image_transforms, len(images.labels), min(16, cores())
    order = [SampleIndex(number // count, number % count) for number in range(GPU_PASS)]
    loaders = {
        name: dali_loader(part, images, GPU, order, batch_size=GPU_BATCH, num_workers=threads)
        for name, part in (("crop and flip", steps[:2]), ("with RandAugment", steps))
    }
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, loader in loaders.items():
            batches = iter(loader.batches())
            next(batches)
            torch.cuda.synchronize()
            start = time.perf_counter()
            loaded = sum(len(batch.labels) for batch in batches)
            torch.cuda.synchronize()
            if number > 0:  # The first pass starts the workers.
                rates[name].append(loaded / (time.perf_counter() - start))
    print(f"\n| DALI on the GPU, {threads} threads, batches of {GPU_BATCH} | images/s | slowest to fastest |\n|---|---:|---:|")
    for name, measured in rates.items():
        print(f"| {name} | {statistics.median(measured):.0f} | {min(measured):.0f} to {max(measured):.0f} |")


if __name__ == "__main__":
    main()
