"""How many processors this process may really use, in a container as well as on a machine."""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_cpus() -> int:
    """Processors left by the affinity mask and by the cgroup's quota; at least 1.

    torch sees all processors of the machine; more threads than the quota allows are paused by the
    kernel in the middle of an inference, which costs far more than having fewer.
    """
    try:
        mask = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        mask = os.cpu_count() or 1
    quota = cgroup_quota()
    return mask if quota is None else max(1, min(mask, math.ceil(quota)))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Processors that the tightest enclosing cgroup allows; None when none sets a limit.

    Args:
        root: under which `proc/self/cgroup` and `sys/fs/cgroup` are looked for.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    quotas = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            mount, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            mount, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        # A limit on an enclosing group binds as well as one on our own.
        parts = Path(path.lstrip("/")).parts
        folders = [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
        quotas += [quota for quota in map(read, folders) if quota is not None]
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
