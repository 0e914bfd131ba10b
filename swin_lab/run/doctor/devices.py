"""Checks of GPUs, their driver and their links, of cores and threads."""

import os
import re
import subprocess
from collections.abc import Iterator

import torch

from swin_lab.data import cores
from swin_lab.run.doctor.findings import Finding

QUERY = "name,driver_version,memory.total,memory.used"
BUSY_MIB = 1024
"""Memory of a GPU in use above which another process works on it."""
OVER_THE_CPU = {"NODE", "SYS"}
"""Links of `nvidia-smi topo -m` that lead through the bridges or the interconnect of the CPUs."""
SMALL = 4
"""Number of cores up to which a second thread in a process takes a core from its loader workers."""


def check_gpus() -> Iterator[Finding]:
    """Yields what is found of GPUs."""
    listed = _nvidia_smi(f"--query-gpu={QUERY}", "--format=csv,noheader,nounits")
    rows = [[cell.strip() for cell in line.split(",")] for line in (listed or "").splitlines() if line.count(",") == 3]
    if not rows:
        yield Finding("GPUs", f"{torch.cuda.device_count()} that torch sees; no nvidia-smi")
        return
    names = ", ".join(f"{row[0]} ({row[2]} MiB)" for row in rows)
    if torch.cuda.is_available():
        yield Finding("GPUs", names)
    else:
        built = f"torch {torch.__version__}, built for CUDA {torch.version.cuda or 'none'}, does not see them"
        yield Finding("GPUs", f"{names}; {built}", "problem", "Install torch for the CUDA of the driver, or a newer driver")
    yield Finding("driver", rows[0][1])
    busy = [f"GPU {i}: {row[3]} MiB" for i, row in enumerate(rows) if row[3].isdigit() and int(row[3]) > BUSY_MIB]
    if busy:
        advice = "End other processes, or choose other GPUs with trainer.devices=[...]"
        yield Finding("GPU memory in use", ", ".join(busy), "warning", advice)
    if len(rows) > 1:
        yield links(_nvidia_smi("topo", "-m") or "")


def links(matrix: str) -> Finding:
    """Judges the links between GPUs, as `nvidia-smi topo -m` prints them."""
    lines = [line.split() for line in re.sub(r"\x1b\[\d*m", "", matrix).splitlines() if line.startswith("GPU")]
    found = sorted({cell for line in lines for cell in line[1 : 1 + len(lines)]} - {"X"})
    if not OVER_THE_CPU & set(found):
        return Finding("GPU links", ", ".join(found) or "unknown")
    advice = "Gradients cross the CPUs: train on GPUs of one side, or accumulate more batches (max_device_batch)"
    return Finding("GPU links", ", ".join(found), "warning", advice)


def check_threads(workers: int) -> Finding:
    """Compares the threads of a process and its loader workers with the cores."""
    threads, number = torch.get_num_threads(), cores()
    given = os.environ.get("OMP_NUM_THREADS", "not set")
    found = f"{threads} threads and {workers} loader workers on {number} cores; OMP_NUM_THREADS: {given}"
    if threads > number:
        return Finding("threads", found, "warning", f"Set OMP_NUM_THREADS={number}: threads wait for each other")
    if threads > 1 and workers > 0 and number <= SMALL and not torch.cuda.is_available():
        return Finding("threads", found, "warning", "Compare with OMP_NUM_THREADS=1: threads and workers share few cores")
    return Finding("threads", found)


def _nvidia_smi(*arguments: str) -> str | None:
    """Returns what nvidia-smi prints; None if it is missing, fails or hangs, as it does with a broken driver."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
