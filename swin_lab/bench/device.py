"""What a device can do, measured in this process: the rate of matrix products and the bandwidth of its memory; memory use."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

from swin_lab.bench.roofline import ATTENTION_SHARE, Rates
from swin_lab.bench.timing import ClockName, seconds_of

PRODUCT_SIDE = {"cpu": 1536, "cuda": 8192}
"""Side of the square matrices whose product is measured."""
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**32}
"""Bytes that are copied to measure the bandwidth: far more than caches hold."""
REPEATS = 5


def measure_rates(device: str, dtype: torch.dtype, clock: ClockName) -> Rates:
    """Measures the rate of a large matrix product and the bandwidth of a large copy, each the best of several repeats.

    On a GPU, the rate of attention's products is assumed, see `ATTENTION_SHARE`; on a CPU it is that of large products.
    """
    side = PRODUCT_SIDE[device]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    products = 2 * side**3 / _best(lambda: torch.mm(a, b), clock)
    source = torch.ones(COPIED_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * COPIED_BYTES[device] / _best(lambda: target.copy_(source), clock)
    return Rates(bandwidth, products, products * (ATTENTION_SHARE if device == "cuda" else 1.0))


def _best(call: Callable[[], object], clock: ClockName) -> float:
    call()
    return min(seconds_of(call, clock) for _ in range(REPEATS))


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Returns how much memory a call allocates at its highest, above what was allocated before.

    On a GPU this is the peak of torch's allocator; on a CPU, that of the allocations that torch's profiler records, which are
    all tensors, but no scratch memory of libraries that have allocators of their own.
    """
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        highest = max(highest, allocated)
    return highest


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drops what native code writes to stderr: the profiler reports its start and end there, at any level of its log."""
    before = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
