"""The memory of this machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def physical_memory() -> int:
    """Return the number of bytes that this process may use: the machine's memory, or less in a container."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # this limit does not exist here
            limits.append(int(Path(path).read_text()))
    return min(limits)
