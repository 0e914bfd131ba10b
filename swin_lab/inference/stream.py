"""Loads chunks of images and computes their outputs, in order: the same bits for any number of workers and threads.

A chunk is a forward pass. Which images are in it depends on their positions in the inputs alone, and each of its operators runs
in one thread, because kernels may give other bits for other batches and numbers of threads. A CPU computes several chunks at
the same time instead.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from swin_lab.data.decoding import decoder
from swin_lab.data.loading import TransformedImages, collate, ignore_signals
from swin_lab.data.sampling import SampleIndex
from swin_lab.data.transforms import eval_transform
from swin_lab.errors import UserError
from swin_lab.inference.inputs import Inputs
from swin_lab.inference.model import InferenceModel

Compute = Callable[[Tensor], np.ndarray]
"""Pixels (B, channels, H, W) of uint8 -> one row per image."""


@dataclass(frozen=True)
class Outputs:
    """Contains the outputs of a chunk."""

    chunk: range
    """The images of the chunk."""
    indices: list[int]
    """Those that could be read."""
    values: np.ndarray
    """(len(indices), ...)."""
    unreadable: list[str]
    """One line for each of the others, with its name and the reason."""


def compute(model: InferenceModel, function: Compute, inputs: Inputs, chunks: list[range], workers: int) -> Iterator[Outputs]:
    """Computes a function of all images of some chunks, in order. Workers are forked here, before any thread starts.

    Args:
        model: says how images are preprocessed, and how many chunks are computed at the same time.
        function: see `Compute`; called by several threads.
        inputs: all images.
        chunks: see `chunks_of`.
        workers: processes that decode images; with 0, this process does it.

    Raises:
        UserError: the images cannot be made inputs of the network.
    """
    dataset = TransformedImages(inputs, eval_transform(model.preprocessing), 0, decoder(model.preprocessing))
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=_Chunks(chunks),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=model.device.type == "cuda",
        worker_init_fn=ignore_signals,
        generator=torch.Generator().manual_seed(0),
    )
    return _results(model, function, chunks, iter(loader))


def chunks_of(count: int, size: int) -> list[range]:
    """Returns the chunks of a number of images: `size` consecutive ones each, fewer in the last one."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class _Chunks(Sampler[list[SampleIndex]]):
    def __init__(self, chunks: list[range]) -> None:
        self.chunks = chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        return ([SampleIndex(0, index) for index in chunk] for chunk in self.chunks)


def _results(model: InferenceModel, function: Compute, chunks: list[range], batches: Iterator[Any]) -> Iterator[Outputs]:
    def outputs(chunk: range, batch: Any) -> Outputs:
        values = function(batch.images) if len(batch.indices) else np.empty((0,), dtype=np.float32)
        return Outputs(chunk, batch.indices.tolist(), values, batch.unreadable)

    given = torch.get_num_threads()
    threads = given if model.device.type == "cpu" else 1
    try:
        torch.set_num_threads(1)
        with model.ready():
            yield from _in_order(outputs, zip(chunks, map(_checked, batches), strict=True), threads)
    finally:
        torch.set_num_threads(given)


def _checked(batch: Any) -> Any:
    if batch.wrong is not None:
        raise UserError(batch.wrong)
    return batch


def _in_order(function: Callable[..., Outputs], arguments: Iterable[tuple[Any, ...]], threads: int) -> Iterator[Outputs]:
    """Calls a function in several threads; at most one more call than threads waits, to limit the images in memory."""
    waiting: deque[Future[Outputs]] = deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for each in arguments:
                waiting.append(pool.submit(function, *each))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
