"""The processor cores of this machine."""

from __future__ import annotations

import os

from alchemist_ray.host.cgroups import limits


def allowed_cores() -> int:
    """Return the number of cores that this process may use, at least 1: by its affinity and its control groups."""
    quotas = [_cores_of(text) for text in limits("cpu", "cpu.max", "cpu.cfs_quota_us")]
    return max(1, min([len(os.sched_getaffinity(0)), *(quota for quota in quotas if quota is not None)]))


def _cores_of(limit: str) -> int | None:
    """Return the whole cores in a limit such as ``200000 100000`` (microseconds in each period), None: no limit."""
    quota, _, period = limit.partition(" ")
    if not quota.isdigit():
        return None
    return max(1, int(quota) // int(period or 100_000))
