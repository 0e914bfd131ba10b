"""Measures the backends of window attention stage by stage, on one GPU; prints a table and writes JSON.

    python benchmarks/window_attention.py [--models swin_tiny ...] [--batch 128] [--repeats 20] [-o FILE.json]
    python benchmarks/window_attention.py --cpu      # a smoke run with tiny shapes, the Triton kernels in the interpreter

For each stage of a network, the operator runs on a map of bfloat16 with the shift and padding of its second block. Times are
medians of interleaved runs, measured with CUDA events. The achieved rate is the ideal traffic divided by the time: a forward
pass must read q, k, v and write the output, and a backward pass must read q, k, v and the gradient of the output and write
three gradients. What a backend copies in addition lowers its rate.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

MODELS = {
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin_base": "swin_base_patch4_window7_224",
    "swinv2_tiny": "swinv2_tiny_window8_256",
}
BACKENDS = ("reference", "sdpa", "triton")


@dataclass(frozen=True)
class Case:
    """The operator of one stage."""

    model: str
    stage: int
    batch: int
    size: tuple[int, int]
    window: tuple[int, int]
    heads: int
    channels: int
    cosine: bool

    @property
    def ideal_bytes(self) -> dict[str, int]:
        """Returns the ideal traffic in bytes of a forward pass, and of a forward and a backward pass."""
        element = self.batch * self.size[0] * self.size[1] * self.channels * 2
        return {"forward": 4 * element, "forward+backward": (4 + 7) * element}


@dataclass(frozen=True)
class Row:
    """One measurement."""

    model: str
    stage: int
    backend: str
    mode: str
    step: str
    ms: float
    spread: float  # difference of the quartiles, relative to the median
    gb_per_s: float
    peak_mib: float | None


def main() -> None:
    arguments = parse_arguments()
    if arguments.cpu:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    elif not torch.cuda.is_available():
        raise SystemExit("error: torch sees no CUDA device; --cpu makes a smoke run with tiny shapes")
    rows: list[Row] = []
    print(
        "| model | stage | step | mode | backend | ms | spread | GB/s | peak MiB |\n|---|---|---|---|---|---:|---:|---:|---:|"
    )
    for case in cases(arguments.models, arguments.batch, arguments.cpu):
        for row in measure(case, "cpu" if arguments.cpu else "cuda", arguments.repeats):
            rows.append(row)
            peak = "" if row.peak_mib is None else f"{row.peak_mib:,.0f}"
            cells = (row.model, row.stage, row.step, row.mode, row.backend, f"{row.ms:.3f}", f"{row.spread:.0%}")
            print("|", " | ".join(map(str, (*cells, f"{row.gb_per_s:,.1f}", peak))), "|", flush=True)
    device = "CPU, Triton interpreted" if arguments.cpu else torch.cuda.get_device_name()
    result = {"device": device, "torch": torch.__version__, "batch": arguments.batch, "rows": [asdict(row) for row in rows]}
    arguments.output.write_text(json.dumps(result, indent=1))
    print(f"\n{device}, torch {torch.__version__}; {arguments.output}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Backends of window attention, stage by stage.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="(default: all)")
    parser.add_argument("--batch", type=int, default=128, help="images (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="interleaved runs of each backend (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="a smoke run on the CPU with tiny shapes, whose times mean nothing")
    parser.add_argument("-o", "--output", type=Path, default=Path("window_attention.json"), metavar="FILE")
    arguments = parser.parse_args()
    if arguments.batch < 1 or arguments.repeats < 1:
        parser.error("--batch and --repeats must be at least 1")
    return arguments


def cases(models: list[str], batch: int, tiny: bool) -> list[Case]:
    """Returns the stages of the networks; tiny: the first one, with one head and a map of two windows."""
    from swin_lab.models.zoo import model_config

    found = []
    for model in models:
        config = model_config(MODELS[model])
        stages = zip(config.maps, config.windows, config.num_heads, config.channels, strict=True)
        for i, (size, window, heads, channels) in enumerate(stages):
            cosine = config.version == 2
            if not tiny:
                found.append(Case(model, i + 1, batch, size, window, heads, channels, cosine))
            elif i == 0:
                found.append(Case(model, 1, 1, (window[0], window[1] + 2), window, 1, 32, cosine))
    return found


def measure(case: Case, device: str, repeats: int) -> list[Row]:
    """Returns a row for each step, mode and backend; the runs of one step are interleaved."""
    modes = ("eager", "compiled") if device == "cuda" else ("eager",)
    rows = []
    for step in ("forward", "forward+backward"):
        torch.compiler.reset()  # The operators of all stages share their code, which is compiled a limited number of times.
        runs = {(mode, name): make_run(case, name, mode, step, device) for mode in modes for name in BACKENDS}
        peaks = {key: warm_up(run, device) for key, run in runs.items()}
        times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        for _ in range(repeats if device == "cuda" else 1):
            for key, run in runs.items():
                times[key].append(timed(run, device))
        for (mode, name), values in times.items():
            ms = statistics.median(values)
            quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [ms] * 3
            spread, rate = (quartiles[2] - quartiles[0]) / ms, case.ideal_bytes[step] / ms / 1e6
            rows.append(Row(case.model, case.stage, name, mode, step, ms, spread, rate, peaks[mode, name]))
    return rows


def make_run(case: Case, backend: str, mode: str, step: str, device: str) -> Callable[[], None]:
    """Returns a function that runs one step of the operator."""
    from swin_lab.ops import window_attention

    (H, W), (M, N), C, h = case.size, case.window, case.channels, case.heads
    backward = step != "forward"

    def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=device).to(dtype).requires_grad_(backward)

    qkv = leaf(case.batch, H, W, 3 * C, dtype=torch.bfloat16)
    table, pad_value = leaf((2 * M - 1) * (2 * N - 1), h), leaf(3 * C)
    scale = torch.full((h, 1, 1), 10.0, device=device).requires_grad_(backward) if case.cosine else None
    leaves = [tensor for tensor in (qkv, table, pad_value, scale) if tensor is not None]
    grad_out = torch.randn(case.batch, H, W, C, device=device, dtype=torch.bfloat16)

    def attend() -> Tensor:
        shift = (M // 2, N // 2)
        return window_attention(
            qkv, table, num_heads=h, window=(M, N), shift=shift, pad_value=pad_value, cosine_scale=scale, backend=backend
        )

    operator = torch.compile(attend, fullgraph=True) if mode == "compiled" else attend

    def run() -> None:
        out = operator()
        if backward:
            torch.autograd.grad(out, leaves, grad_out, allow_unused=True)

    return run


def warm_up(run: Callable[[], None], device: str) -> float | None:
    """Compiles and runs a step; returns its peak of allocated memory in MiB, or None on a CPU."""
    if device != "cuda":
        return None
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return float(torch.cuda.max_memory_allocated() - before) / 2**20


def timed(run: Callable[[], None], device: str) -> float:
    """Returns the time of one run in milliseconds."""
    if device != "cuda":
        start = time.process_time()
        run()
        return (time.process_time() - start) * 1e3
    start_event, end_event = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start_event.record()
    run()
    end_event.record()
    torch.cuda.synchronize()
    return float(start_event.elapsed_time(end_event))


if __name__ == "__main__":
    main()
