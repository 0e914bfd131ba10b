"""The loader of training images that decodes and augments with DALI."""

import logging
from collections import deque
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from swin_lab.data.dali.host import FILTERS, PreparedBatch, PreparedImages, not_encoded
from swin_lab.data.dali.parameters import augmentation_of
from swin_lab.data.decoding import UNREADABLE, Decoder
from swin_lab.data.device import StagedTransform
from swin_lab.data.images import ImageSet
from swin_lab.data.loading import Batch, TimedLoader, WaitingTime
from swin_lab.data.sampling import EvalSampler, SampleIndex, TrainSampler
from swin_lab.errors import UserError

log = logging.getLogger("swin_lab.data")

BATCHES_AHEAD = 2
"""Number of batches that DALI works on at a time."""

THREADS_PER_WORKER = 4
"""Threads of DALI for which one process reads files and draws parameters, which takes a fraction of the time of decoding."""


def check(images: ImageSet, transform: StagedTransform) -> None:
    """Checks that DALI can load a training set.

    Args:
        images: encoded images.
        transform: that of training.

    Raises:
        UserError: DALI is not installed, has no version of a transform, or the images are no encoded files.
    """
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        raise UserError(
            "data.loader=dali needs NVIDIA DALI (Linux only): pip install 'swin-lab[dali]'\nOr choose data.loader=torch"
        )
    augmentation_of(transform)
    if len(images.labels) == 0:
        return
    try:
        encoded = images.encoded(0)
    except UNREADABLE:  # the loader names it, and `data.on_error` decides
        return
    if not isinstance(encoded, bytes):
        raise not_encoded(images.name(0))


class DaliLoader(TimedLoader):
    """Loads batches of augmented training images: (B, channels, H, W) of uint8, which are on the device already.

    Worker processes read the files and draw the parameters, as for the other loader in the order of the sampler and from the
    seed, epoch and index of each image. DALI decodes the crop, resizes and augments, on a GPU or in threads of this process.

    Args:
        images: encoded images.
        transform: that of training; its image transforms are those of `parameters.Augmentation`.
        seed: seed of the augmentation.
        decode: decoder of the images that DALI does not decode.
        sampler: order of the images.
        batch_size: images in a batch; the last one may have fewer.
        num_workers: threads of DALI on the host; one process for four of them prepares the files, and the main process for 0.
        device: device of the batches.
        waiting: the time is added to it, except for the first batch of each epoch.

    Raises:
        UserError: DALI has no version of a transform.
    """

    def __init__(
        self,
        images: ImageSet,
        transform: StagedTransform,
        *,
        seed: int,
        decode: Decoder,
        sampler: TrainSampler | EvalSampler,
        batch_size: int,
        num_workers: int,
        device: torch.device,
        waiting: WaitingTime,
    ) -> None:
        self.prepared = PreparedImages(images, transform, seed, decode)
        super().__init__(
            self.prepared,
            sampler=sampler,
            batch_size=batch_size,
            num_workers=-(-num_workers // THREADS_PER_WORKER),
            waiting=waiting,
            collate=self.prepared.collate,
        )
        self.threads = max(1, num_workers)
        self.device = device
        self._pipeline: Any = None

    def batches(self) -> Iterator[Batch]:
        """Returns the batches of a pass."""
        pending: deque[PreparedBatch] = deque()
        try:
            for batch in super().batches():
                self._schedule(batch)
                pending.append(batch)
                if len(pending) > BATCHES_AHEAD:
                    yield self._finish(pending)
            while pending:
                yield self._finish(pending)
        finally:
            if any(len(batch.labels) for batch in pending):
                self._pipeline = None  # It still works on batches of this pass.

    def _schedule(self, batch: PreparedBatch) -> None:
        """Gives a batch to DALI, which works on it in its threads."""
        if len(batch.labels) == 0:
            return
        if self._pipeline is None:
            self._pipeline = self._build()
        starts = np.cumsum([0, *batch.lengths.tolist()])
        files, boxes, flips = batch.encoded.numpy(), batch.boxes.numpy(), batch.flips.numpy()
        inputs: dict[str, Any] = {
            "encoded": [files[start:end] for start, end in pairwise(starts)],
            "anchor": np.ascontiguousarray(boxes[:, :2]),
            "shape": np.ascontiguousarray(boxes[:, 2:]),
            "filter": self._filters[batch.filters.numpy()],
            "horizontal": np.ascontiguousarray(flips[:, 0]),
            "vertical": np.ascontiguousarray(flips[:, 1]),
        }
        for number in range(batch.kinds.shape[1]):
            inputs[f"kind{number}"] = batch.kinds[:, number].contiguous().numpy()
            inputs[f"amount{number}"] = batch.amounts[:, number].contiguous().numpy()
            inputs[f"matrix{number}"] = batch.matrices[:, number].contiguous().numpy()
        for name, values in inputs.items():
            self._pipeline.feed_input(name, values)
        self._pipeline.schedule_run()

    def _build(self) -> Any:
        from swin_lab.data.dali import graph  # DALI is an optional package

        self._filters = np.array([int(graph.FILTERS[name]) for name in FILTERS], dtype=np.int32)
        augmentation = self.prepared.augmentation
        return graph.build(
            size=augmentation.size,
            channels=self.prepared.channels,
            max_operations=augmentation.max_operations,
            fill=augmentation.fill,
            batch_size=self.batch_size or 1,
            threads=self.threads,
            device=self.device.index or 0 if self.device.type == "cuda" else None,
        )

    def _finish(self, pending: deque[PreparedBatch]) -> Batch:
        """Waits for the first of the pending batches, and removes it from them."""
        try:
            images = self._images(pending[0])
        except RuntimeError as error:  # DALI names neither the image nor its batch
            log.debug("%s", error)
            log.warning("DALI could not decode a batch; Pillow decodes the images of the last %d batches again", len(pending))
            self._repeat_by_pillow(pending)
            images = self._images(pending[0])
        batch = pending.popleft()
        return Batch(
            images=images,
            labels=batch.labels,
            samples=batch.samples,
            unreadable=batch.unreadable,
            erased=batch.erased,
            wrong=batch.wrong,
        )

    def _images(self, batch: PreparedBatch) -> Tensor:
        if len(batch.labels) == 0:
            return torch.empty(0)
        stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
        (images,) = self._pipeline.outputs(cuda_stream=stream)
        # The copy is torch's own memory; DALI uses its buffer for a later batch.
        return from_dlpack(images.as_tensor()).clone()

    def _repeat_by_pillow(self, pending: deque[PreparedBatch]) -> None:
        """Gives the pending batches to a new pipeline, with images that Pillow decodes or names as damaged."""
        self._pipeline = None
        for number, batch in enumerate(pending):
            samples = [SampleIndex(*sample) for sample in batch.samples.tolist()]
            again = self.prepared.collate([self.prepared.prepared(sample, by_pillow=True) for sample in samples])
            pending[number] = again._replace(unreadable=[*batch.unreadable, *again.unreadable])
            self._schedule(pending[number])
