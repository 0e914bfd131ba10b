"""The LightningDataModule of every data source."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import joblib
import numpy as np
import torch
from annotated_types import Ge, Le, Len, Predicate
from lightning import LightningDataModule
from torch import Tensor

from swin_lab.data.cache import cached_in_memory
from swin_lab.data.classes import has_several_labels
from swin_lab.data.dali import loader as dali
from swin_lab.data.decoders import DecoderName
from swin_lab.data.decoding import Decoder, decode
from swin_lab.data.device import Deferred, Rectangle, staged
from swin_lab.data.draws import Draws
from swin_lab.data.images import ImageSource
from swin_lab.data.loading import TimedLoader, TransformedImages, WaitingTime, collate
from swin_lab.data.progressive import ProgressiveSize
from swin_lab.data.resident import ResidentImages, resident_sets
from swin_lab.data.sampling import BEGINNING, ClassBalance, EvalSampler, TrainSampler
from swin_lab.data.transforms import Transform
from swin_lab.errors import UserError
from swin_lab.preprocessing import CropPct, Deviation, Interpolation, ResizeMode
from swin_lab.validation import Expected, NonNegativeInt, PositiveInt, Probability, check_fields

log = logging.getLogger("swin_lab.data")

MAX_WORKERS = 16
"""Maximum number of worker processes per device, unless `data.num_workers` is given."""

PROCESSES_PER_CORE = 4
"""Number of processes on a core that are accepted at most: reading from a slow disk may need more than one."""

SizeByEpoch = Annotated[
    tuple[tuple[NonNegativeInt, PositiveInt], ...],
    Len(min_length=1),
    Expected("a list of pairs of an epoch, counted from 0, and a positive size in pixels, such as [[0,128],[100,224]]"),
]
PerChannel = Predicate(lambda values: len(values) in (1, 3))
Mean = Annotated[tuple[Probability, ...], PerChannel, Expected("a list of 3 numbers from 0 to 1 (RGB), or of one (greyscale)")]
Std = Annotated[tuple[Deviation, ...], PerChannel, Expected("a list of 3 numbers from 0.001 to 1 (RGB), or of one (greyscale)")]

SEED_OFFSET = 2_038_074_743
"""Difference of the seeds of what a task draws and of the augmentation, whose numbers would otherwise be the same."""

LoadedBatch = tuple[Tensor | Deferred, Tensor, Tensor, list[tuple[int, Rectangle]], tuple[Tensor, ...]]


def draw_nothing(draws: Draws, img_size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Returns no further part of a batch."""
    return ()


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Contains the settings of image loading, which every choice of `data=` has besides the keys of its source.

    Raises:
        UserError: a value has the wrong type or is out of range, or has no effect on the chosen loader.
    """

    mean: Mean | None = None
    """Mean per channel, of values from 0 to 1. If None, it is measured on the training images."""
    std: Std | None = None
    """Standard deviation per channel. If None, it is measured on the training images."""
    resize_mode: ResizeMode = "crop"
    """Resizing of an evaluation: `crop` keeps the aspect ratio and takes the centre crop, `stretch` does not keep it."""
    crop_pct: CropPct = 1.0
    """Side of the centre crop of an evaluation, relative to the resized image."""
    interpolation: Interpolation = "bicubic"
    """Resampling filter of an evaluation."""
    class_balance: Probability = 0.0
    """How often rare classes are drawn: 0 as often as they occur, 0.5 by the square root, 1 all classes equally often."""
    size_by_epoch: SizeByEpoch | None = None
    """Progressive resolution: pairs of an epoch, counted from 0, and the shorter side in pixels from it on. If None, all epochs
    have the full size."""
    repeats: PositiveInt = 1
    """Number of differently augmented copies of an image in a training batch (repeated augmentation, arXiv 1901.09335)."""
    cache_mib: Annotated[int, Ge(0), Le(2**22)] = 512
    """Limit of the cache in MiB: a smaller set of images of one size is decoded once and cached in memory; 0 disables it.
    `loader="dali"` does not cache training images."""
    cache: Literal["memory", "device"] = "memory"
    """Place of the cache. `device` keeps both sets on every device, where batches are augmented; it starts no worker processes,
    takes shifts, flips, TrivialAugment and random erasing only, and refuses a set above `cache_mib`."""
    on_error: Literal["raise", "skip"] = "raise"
    """Handling of images that cannot be decoded: `raise` stops and names it, `skip` leaves it out, counts and reports it."""
    decoder: DecoderName = "pillow"
    """Decoder of colour JPEGs; all but `pillow` are optional packages. Pillow decodes everything else. Pixels are the same.
    `nvimgcodec` decodes only the crop of a training image if the augmentation begins with a random resized crop."""
    decode_size: Literal["full", "crop"] = "full"
    """Size at which training JPEGs are decoded: `crop` is a fraction of theirs where a random crop is at least twice as large
    as the input, which changes pixels slightly."""
    num_workers: NonNegativeInt | None = None
    """Worker processes per device. If None, one per available core, at most 16."""
    loader: Literal["torch", "dali"] = "torch"
    """Loader of the training images: `torch` decodes and augments with Pillow in worker processes, `dali` with NVIDIA DALI
    on the GPU, or in `num_workers` threads without one. Evaluations always use `torch`: published results used Pillow."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        if self.cache == "device" and self.decode_size != "full":
            raise UserError("data.decode_size=crop needs random crops of every size, which data.cache=device does not make")
        if self.cache == "device" and self.num_workers:
            raise UserError(
                f"data.num_workers={self.num_workers} has no effect on data.cache=device, which starts no worker processes\n"
                "Choose data.num_workers=0 or data.cache=memory"
            )
        without_effect = (("decoder", self.decoder, "pillow"), ("decode_size", self.decode_size, "full"))
        for name, value, allowed in (*without_effect, ("cache", self.cache, "memory")):
            if self.loader == "dali" and value != allowed:
                raise UserError(
                    f"data.{name}={value} has no effect on data.loader=dali, which decodes the crops of JPEGs itself, at full "
                    f"size\nChoose data.{name}={allowed} or data.loader=torch"
                )


class ImageData(LightningDataModule):
    """Provides the training and validation batches of a run.

    Args:
        source: training and validation images.
        train_transform: RGB image -> tensor with augmentation. If None, the run only evaluates. Of a `StagedTransform`, workers
            apply the first stage, and the second one is applied to batches on the device.
        eval_transform: RGB image -> tensor, likewise.
        global_batch: images per optimizer update over all processes.
        device_batch: images per forward pass of one process.
        seed: seed of shuffling and augmentation.
        loading: workers, cache, and handling of images that cannot be decoded.
        decode: the decoder of the images; for `loader="dali"`, of the training images that DALI does not decode.
        train_decode: the decoder of training images that are not cached. If None, it is `decode`.
        draw: draws further parts of a batch, such as masks, one row per image each. In an evaluation, its random numbers depend
            on the image alone, so that the metrics of different runs can be compared.

    Set `start` before the training to resume an earlier one.

    Raises:
        UserError: there are too many workers for this machine, or more copies of an image than images in a batch; with
            `cache="device"`, a set is larger than the limit, or a transform cannot be applied to a batch; or DALI cannot load
            the training images.
    """

    def __init__(
        self,
        source: ImageSource,
        train_transform: Transform | None,
        eval_transform: Transform,
        *,
        global_batch: int,
        device_batch: int,
        seed: int,
        img_size: tuple[int, int],
        loading: LoaderConfig,
        decode: Decoder = decode,
        train_decode: Decoder | None = None,
        draw: Callable[[Draws, tuple[int, int]], tuple[Tensor, ...]] = draw_nothing,
    ) -> None:
        super().__init__()
        check_processes("data.num_workers", loading.num_workers)
        if train_transform is not None and loading.repeats > global_batch:
            raise UserError(f"data.repeats={loading.repeats} is more than global_batch={global_batch}, the images of an update")
        self.train_transform = staged(train_transform) if train_transform is not None else None
        if self.train_transform is not None and loading.loader == "dali":
            if train_decode is not None:
                raise UserError("data.loader=dali decodes the training images itself; it takes no train_decode")
            dali.check(source.train, self.train_transform)
        self.source = source
        self.eval_transform = staged(eval_transform)
        self.global_batch = global_batch
        self.device_batch = device_batch
        self.seed = seed
        self.loading = loading
        self.decode = decode
        self.train_decode = train_decode or decode
        self.img_size = img_size
        self.draw = draw
        self.progressive = self._progressive() if train_transform is not None else None
        self.balance = self._balance() if train_transform is not None else None
        self.start = BEGINNING
        """Where the order of the training images begins."""
        self.skipped: set[str] = set()
        self._waiting = WaitingTime()
        self._resident: dict[str, ResidentImages] = {}
        if loading.cache == "device":
            self._resident = resident_sets(
                source, self.train_transform, self.eval_transform, max_mib=loading.cache_mib, decode=decode, seed=seed
            )

    def _progressive(self) -> ProgressiveSize | None:
        """Returns the sizes of epochs; raises UserError if they do not fit images or task."""
        if self.loading.size_by_epoch is None:
            return None
        if self.draw(Draws(0, 0, np.zeros(1), np.zeros(1)), self.img_size):
            raise UserError("data.size_by_epoch has other sizes than what the task draws for each image; set it to null")
        return ProgressiveSize(self.loading.size_by_epoch, self.img_size)

    def _balance(self) -> ClassBalance | None:
        """Returns what draws the images of an epoch; None for all of them once."""
        strength = self.loading.class_balance
        if strength > 0 and has_several_labels(self.source.train):
            raise UserError(
                f"data.class_balance={strength} needs one class per image, and these images have several labels; set it to 0, "
                "and task.class_weights=balanced"
            )
        return ClassBalance(np.asarray(self.source.train.labels), strength) if strength > 0 else None

    @property
    def seconds_waited(self) -> float:
        """Returns the time that the main process has waited for training batches, without the first batch of each epoch."""
        return self._waiting.seconds

    def train_dataloader(self) -> TimedLoader:
        """Returns the loader of whole global batches, in a new order in every epoch."""
        assert self.trainer is not None
        sampler = TrainSampler(
            len(self.source.train.labels),
            self.global_batch,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.seed,
            self.loading.repeats,
            self.start,
            self.balance,
        )
        if self.loading.loader == "dali":
            return self._dali_loader(sampler)
        return self._loader(self._train_set, sampler, self._waiting, self.workers_on(self.trainer.num_devices))

    def val_dataloader(self) -> TimedLoader:
        """Returns the loader of this process's part of the validation images, each of them once."""
        assert self.trainer is not None
        sampler = EvalSampler(len(self._val_set), self.trainer.global_rank, self.trainer.world_size)
        return self._loader(self._val_set, sampler, WaitingTime(), self.workers_on(self.trainer.num_devices))

    def try_evaluation(self) -> None:
        """Loads the first batch of an evaluation as an evaluation does, and drops it.

        An error would otherwise end the run at its first evaluation, perhaps hours after its start.

        Raises:
            UserError: as in `on_before_batch_transfer`.
        """
        assert self.trainer is not None
        images = min(len(self._val_set), self.device_batch * self.trainer.world_size)
        sampler = EvalSampler(images, self.trainer.global_rank, self.trainer.world_size)
        workers = min(1, self.workers_on(self.trainer.num_devices))
        for batch in self._loader(self._val_set, sampler, WaitingTime(), workers):
            self._examine(batch)

    @cached_property
    def _train_set(self) -> TransformedImages | ResidentImages:
        if "train" in self._resident:
            return self._resident["train"]
        assert self.train_transform is not None
        images = cached_in_memory(self.source.train, self.loading.cache_mib, self.decode)
        return TransformedImages(images, self.train_transform, self.seed, self.train_decode)

    @cached_property
    def _val_set(self) -> TransformedImages | ResidentImages:
        if "val" in self._resident:
            return self._resident["val"]
        images = cached_in_memory(self.source.val, self.loading.cache_mib, self.decode)
        return TransformedImages(images, self.eval_transform, self.seed, self.decode)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> LoadedBatch:
        """Stops at images that could not be decoded, or counts them.

        It runs in the main process, where the count is exact for any number of workers.

        Returns:
            Images (B, channels, H, W), labels (B,), indices of the images in their set (B,), rectangles to erase, and what the
            task draws.

        Raises:
            UserError: an image could not be decoded and `on_error` is raise, an item of the data is no image, the transforms
                make no tensors of one shape, or a training batch has no image left.
        """
        self._examine(batch)
        training = self.trainer is not None and self.trainer.training
        if len(batch.labels) == 0 and training:
            raise UserError(f"none of the images of a batch can be decoded, such as {batch.unreadable[0]}")
        epochs, indices, copies = batch.samples.T.numpy()
        drawn = self.draw(Draws(self.seed + SEED_OFFSET if training else 0, epochs, indices, copies), self.img_size)
        return batch.images, batch.labels, batch.indices, batch.erased, drawn

    def _examine(self, batch: Any) -> None:
        if batch.wrong is not None:
            raise UserError(batch.wrong)
        for line in batch.unreadable:
            if self.loading.on_error == "raise":
                raise UserError(f"cannot decode image {line}\nFix or remove it, or skip such images: data.on_error=skip")
            if line not in self.skipped:
                self.skipped.add(line)
                log.warning("skipped image that cannot be decoded: %s", line)

    def on_after_batch_transfer(self, batch: LoadedBatch, dataloader_idx: int) -> tuple[Tensor, ...]:
        """Applies the second stage of the transform, on the device.

        Returns:
            Images (B, channels, H, W) in the precision of the inputs, labels (B,), indices of the images in their set (B,), and
            what the task draws.
        """
        images, labels, indices, erased, drawn = batch
        assert self.trainer is not None
        transform = self.train_transform if self.trainer.training else self.eval_transform
        assert transform is not None
        if isinstance(images, Deferred):
            images = images.pixels(indices)
        if len(labels):
            images = transform.finish(images, erased)
            if self.progressive is not None and self.trainer.training:
                images = self.progressive.resize(images, self.trainer.current_epoch)
            images = self.trainer.precision_plugin.convert_input(images)
        return images, labels, indices, *drawn

    def skipped_everywhere(self) -> set[str]:
        """Returns the images that were skipped in any process."""
        if not torch.distributed.is_initialized():
            return self.skipped
        gathered: list[set[str] | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, self.skipped)
        return set().union(*(skipped or set() for skipped in gathered))

    def _loader(
        self,
        dataset: TransformedImages | ResidentImages,
        sampler: TrainSampler | EvalSampler,
        waiting: WaitingTime,
        workers: int,
    ) -> TimedLoader:
        return TimedLoader(
            dataset,
            sampler=sampler,
            batch_size=self.device_batch,
            num_workers=0 if isinstance(dataset, ResidentImages) else workers,
            waiting=waiting,
            collate=dataset.collate if isinstance(dataset, ResidentImages) else collate,
        )

    def _dali_loader(self, sampler: TrainSampler) -> TimedLoader:
        assert self.trainer is not None
        assert self.train_transform is not None
        return dali.DaliLoader(
            self.source.train,
            self.train_transform,
            seed=self.seed,
            decode=self.decode,
            sampler=sampler,
            batch_size=self.device_batch,
            num_workers=self.workers_on(self.trainer.num_devices),
            device=self.trainer.strategy.root_device,
            waiting=self._waiting,
        )

    def workers_on(self, devices: int) -> int:
        """Returns the number of worker processes per device, for a number of devices on this machine."""
        if self.loading.num_workers is not None:
            return self.loading.num_workers
        return default_workers(devices)


def default_workers(devices: int) -> int:
    """Returns the number of worker processes per device if none is given, for a number of devices on this machine."""
    granted = int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))  # It is per process.
    return min(MAX_WORKERS, max(1, min(granted, cores()) or cores() // max(1, devices)))


def check_processes(name: str, number: int | None) -> None:
    """Raises UserError if there are more processes than this machine can run well; `name` is that of the setting."""
    limit = max(MAX_WORKERS, PROCESSES_PER_CORE * cores())
    if number is not None and number > limit:
        raise UserError(f"{name}={number} is too many for {cores()} cores; give at most {limit}")


def cores() -> int:
    """Returns the number of cores that this process may use; affinity and a container's quota count."""
    return int(joblib.cpu_count())
