"""How many CPU cores this process may use: those it may run on, within its cgroup's limit."""

import math
import os
from pathlib import Path

# Of cgroup v2, and of v1.
_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)

_SMALL = 20_000_000  # parameters; the smallest published checkpoint has 93 million


def available() -> int:
    """Cores; a container's limit rounded up. With more threads than this they wait in turn."""
    allowed = len(os.sched_getaffinity(0))
    for files in _QUOTAS:
        if all(file.exists() for file in files):
            return min(allowed, quota(" ".join(file.read_text() for file in files)) or allowed)
    return allowed


def worth_using(parameters: int) -> int:
    """Threads for a model of that size, alone on the machine or not.

    A small model's steps are so short that a second thread mostly waits for the first, spinning;
    beside other processes the demo model was ten times slower with two than with one.
    """
    return 1 if parameters < _SMALL else available()


def quota(text: str) -> int:
    """Cores from "QUOTA PERIOD" in microseconds; 0 if there is no limit ("max" or -1)."""
    limit, period = text.split()
    return 0 if limit in ("max", "-1") else math.ceil(int(limit) / int(period))
