"""How many descriptors a process may have open."""

from __future__ import annotations

import resource


def allow_all_descriptors() -> None:
    """Raise the limit of this process, and of those that it starts later, as far as the system allows.

    Many systems allow 1024 by default. An agent needs two for each rank, and the parent of its ranks three.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
