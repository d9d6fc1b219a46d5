"""The memory of this machine."""

from __future__ import annotations

import os

from alchemist_ray.host.cgroups import limits


def physical_memory() -> int:
    """Return the number of bytes that this process may use: the machine's memory, or what its control groups allow."""
    allowed = limits("memory", "memory.max", "memory.limit_in_bytes")
    machine: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(int(text) for text in allowed if text.isdigit())])
