"""Small things that several test modules use."""

from __future__ import annotations

import time
from collections.abc import Callable

from alchemist_ray import AlchemistSession
from alchemist_ray.transfer import plane_of


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Return whether `condition` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def memory_in_use(session: AlchemistSession) -> list[int]:
    """Return the bytes that each worker of the session has in use, what was dropped before being freed."""
    plane_of(session.address).free_dropped()
    (row,) = [s for s in session.server_status()["sessions"] if s["id"] == session.session_id]
    return [worker["memory_in_use"] for worker in row["workers"]]
