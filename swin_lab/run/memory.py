"""The memory of this machine, and what this process may still use of it and has used."""

import sys
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Files with limit and use of a container, in versions 2 and 1 of Linux's control groups."""


def total_memory() -> int | None:
    """Returns the bytes of memory of this machine; None on a system that does not say it."""
    if not MEMINFO.is_file():
        return None
    return 1024 * int(_meminfo()["MemTotal"].split()[0])


def _meminfo() -> dict[str, str]:
    return dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())


def peak_memory() -> int | None:
    """Returns the largest resident memory of this process so far, in bytes; None on a system without getrusage."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def available_memory() -> int | None:
    """Returns the bytes that the system and the limit of a container leave; None on a system that does not say it."""
    if not MEMINFO.is_file():
        return None
    available = 1024 * int(_meminfo()["MemAvailable"].split()[0])
    for limit, used in CGROUPS:
        if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
            available = min(available, int(text) - int(used.read_text()))
    return max(available, 0)
