"""Checks of memory, shared memory, open files, the disk of the runs, and the clock."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import torch

from swin_lab.run.doctor.findings import Finding
from swin_lab.run.memory import available_memory
from swin_lab.run.preflight import Needs, advice_on_shared_memory, free_shared_memory, mb, open_file_limit

WRITTEN = 32 * 2**20
"""Bytes that are written to measure the speed of a disk."""
SLOW = 50e6
"""Bytes per second below which saving a checkpoint of Swin-L with its optimizer state (2.4 GB) takes most of a minute."""
LITTLE_SPACE, LITTLE_MEMORY = 10e9, 2e9
SKEW = 2.0
"""Seconds by which the clock of the file system may differ: the newest checkpoint is found by its time."""


def check_memory(needs: Needs) -> Iterator[Finding]:
    """Yields what is found of memory, shared memory and open files."""
    memory = available_memory()
    if memory is not None:
        little = memory < LITTLE_MEMORY
        advice = "Free memory, or lower data.num_workers and data.cache_mib" if little else ""
        yield Finding("memory", f"{mb(memory)} free", "warning" if little else "ok", advice)
    shared = free_shared_memory()
    if shared is not None:
        found = f"{mb(shared)} free, {mb(needs.shared_bytes)} needed by {needs.workers} loader workers"
        enough = shared >= needs.shared_bytes
        advice = "" if enough else advice_on_shared_memory(needs, shared)
        yield Finding("shared memory", found, "ok" if enough else "problem", advice)
    limit = open_file_limit()
    if limit is not None:
        enough = limit >= needs.open_files
        advice = "" if enough else f"Raise it: ulimit -n {max(4096, needs.open_files)}"
        yield Finding("open files", f"limit {limit}, about {needs.open_files} needed", "ok" if enough else "problem", advice)


def check_disk(out: Path) -> Iterator[Finding]:
    """Yields what is found of the disk of a folder, which need not exist, and of its clock; nothing remains there."""
    folder = next(path for path in (out, *out.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    advice = "Free space, or choose another disk with out=FOLDER" if free < LITTLE_SPACE else ""
    yield Finding("space for runs", f"{mb(free)} free in {folder}", "warning" if advice else "ok", advice)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".swin_lab_doctor_") as file:
            started = perf_counter()
            file.write(os.urandom(2**20) * (WRITTEN // 2**20))
            file.flush()
            os.fsync(file.fileno())
            speed = WRITTEN / (perf_counter() - started)
            skew = abs(os.fstat(file.fileno()).st_mtime - time.time())
    except OSError as error:
        advice = "Choose another folder with out=FOLDER"
        yield Finding("writing runs", f"{folder}: {error.strerror or error}", "problem", advice)
        return
    slow = speed < SLOW
    advice = "Checkpoints take long: choose another disk with out=FOLDER, or raise checkpoint.every_minutes" if slow else ""
    yield Finding("writing runs", f"{mb(int(speed))} per second, synced, in {folder}", "warning" if slow else "ok", advice)
    yield clock(time.time(), Path(torch.__file__).stat().st_ctime, skew)


def clock(now: float, installed: float, skew: float) -> Finding:
    """Judges the clock: it must be later than the installation of a package, and agree with that of the file system.

    Args:
        now: the time in seconds, as `time.time` returns it.
        installed: time at which a package was installed.
        skew: difference between the clocks in seconds.
    """
    found = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now))
    advice = "Set the clock (NTP): run directories are named after it, and the newest checkpoint is found by it"
    if now < installed:
        return Finding("clock", f"{found}, which is before the installation of torch", "problem", advice)
    if skew > SKEW:
        return Finding("clock", f"{found}, {skew:.0f} s from that of the file system", "warning", advice)
    return Finding("clock", found)
