"""The memory that this process may still use."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Files with limit and use of a container, in versions 2 and 1 of Linux's control groups."""


def available_memory() -> int | None:
    """Returns the bytes that the system and the limit of a container leave; None on a system that does not say it."""
    if not MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    available = 1024 * int(lines["MemAvailable"].split()[0])
    for limit, used in CGROUPS:
        if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
            available = min(available, int(text) - int(used.read_text()))
    return max(available, 0)
