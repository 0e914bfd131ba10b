"""Measures images/s of one core for the published augmentation: timm's transform on Pillow, and the loader of this package.

Every row decodes the same images from memory, transforms them and collates batches. Times are CPU time of one thread: first in
one process, where all take turns after every batch, then of a DataLoader with one worker (of both its processes).
"""

import argparse
import random
import resource
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from timm.data.transforms_factory import create_transform
from torch.utils.data import DataLoader, Dataset, default_collate

from swin_lab.data import TimmAugment
from swin_lab.data.augment import posterize
from swin_lab.data.crops import crop_decoder
from swin_lab.data.decoders import DecoderName, build_decoder, check_installed
from swin_lab.data.images import read_image_file
from swin_lab.data.loading import Batch, TransformedImages, collate
from swin_lab.data.sampling import SampleIndex
from swin_lab.data.transforms import train_transform
from swin_lab.errors import UserError
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

SIZE = 224
POLICY = "rand-m9-mstd0.5-inc1"
BATCH = 50

Worker = Callable[[list[int]], Any]
"""Indices of the images of a batch -> the batch."""


class Encoded:
    """Contains the bytes of image files."""

    def __init__(self, files: list[Path]) -> None:
        self.contents = [read_image_file(file) for file in files]
        self.labels = [0] * len(files)

    def encoded(self, index: int) -> bytes:
        return self.contents[index]

    def name(self, index: int) -> str:
        return f"image {index}"


def timm_worker(images: Encoded) -> Worker:
    """Returns what a worker of a DataLoader does with timm's transform: decode, transform to floats, collate."""
    transform = create_transform(
        SIZE, is_training=True, auto_augment=POLICY, re_prob=0.25, re_mode="pixel", interpolation="bicubic"
    )
    for op in transform.transforms[2].ops:
        if op.name.startswith("Posterize"):
            op.aug_fn = posterize  # timm's fails with 0 bits and Pillow 13

    def worker(indices: list[int]) -> Any:
        samples = []
        for index in indices:
            random.seed(index)
            np.random.seed(index)
            torch.manual_seed(index)
            samples.append((transform(Image.open(BytesIO(images.encoded(index))).convert("RGB")), 0))
        return default_collate(samples)

    return worker


def our_worker(images: Encoded, decoder: DecoderName, *, device_stage: bool) -> Worker:
    """Returns what a worker of this package does; with `device_stage`, normalisation and erasing as well, on the CPU."""
    preprocessing = Preprocessing(
        img_size=(SIZE, SIZE), channels=3, crop_pct=0.875, interpolation="bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    augment = TimmAugment(img_size=SIZE, mean=IMAGENET_MEAN, auto_augment=POLICY)
    decode, image_transforms = build_decoder(preprocessing, decoder), augment.image_transforms
    if (cropped := crop_decoder(image_transforms[0], decode, reduced=False)) is not None:
        decode, image_transforms = cropped, image_transforms[1:]
    transform = train_transform(preprocessing, image_transforms, augment.tensor_transforms)
    dataset = TransformedImages(images, transform, 0, decode)

    def worker(indices: list[int]) -> Batch | torch.Tensor:
        batch = collate([dataset[SampleIndex(0, index)] for index in indices])
        return transform.finish(batch.images, batch.erased) if device_stage else batch

    return worker


def seconds(workers: dict[str, Worker], count: int) -> dict[str, float]:
    """Returns the CPU time of one pass over `count` images; the workers take turns after every batch."""
    taken = dict.fromkeys(workers, 0.0)
    for first in range(0, count, BATCH):
        indices = list(range(first, min(first + BATCH, count)))
        for name, worker in workers.items():
            start = time.process_time()
            worker(indices)
            taken[name] += time.process_time() - start
    return taken


class Indices(Dataset[int]):
    """Contains the numbers below `count`; the collate function does the work."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def loader_seconds(worker: Worker, count: int) -> float:
    """Returns the CPU time in which a DataLoader with one worker process delivers `count` images."""

    def used() -> float:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in both)

    start = used()
    for _ in DataLoader(Indices(count), batch_size=BATCH, num_workers=1, collate_fn=worker):
        pass
    return used() - start  # The worker has been waited for.


def print_table(title: str, rounds: list[dict[str, float]], count: int) -> None:
    """Prints images/s and ratios to the first row."""
    base = next(iter(rounds[0]))
    table = Table(title, "images/s", "ratio, median", "ratios of the rounds")
    for name in rounds[0]:
        ratios = [times[base] / times[name] for times in rounds]
        rate = count / median(times[name] for times in rounds)
        table.add_row(name, f"{rate:.0f}", f"{median(ratios):.2f}", " ".join(f"{ratio:.2f}" for ratio in ratios))
    Console(width=128).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder with JPEG files")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = Encoded(sorted(arguments.root.rglob("*.JPEG"))[: arguments.images])
    count = len(images.labels)
    workers = {"timm's transform on Pillow, float": timm_worker(images)}
    for name in get_args(DecoderName):
        try:
            check_installed(name)
        except UserError as error:
            print(error)
            continue
        workers[f"{name}, uint8"] = our_worker(images, name, device_stage=False)
        workers[f"{name}, uint8, device stage on the CPU"] = our_worker(images, name, device_stage=True)
    seconds(workers, min(count, BATCH))
    rounds = [seconds(workers, count) for _ in range(arguments.rounds)]
    print_table("in one process", rounds, count)
    loaders = {name: worker for name, worker in workers.items() if "device stage" not in name}
    rounds = [{name: loader_seconds(worker, count) for name, worker in loaders.items()} for _ in range(arguments.rounds)]
    print_table("loader with one worker", rounds, count)


if __name__ == "__main__":
    main()
