"""One client application, as the driver sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from alchemist_ray.mpi_backend.driver.group import WorkerGroup
from alchemist_ray.transport.async_channel import AsyncChannel


@dataclass(eq=False)
class Session:
    """One client application.

    Attributes
    ----------
    session_id : int
        Its number.
    software : str
        What it calls itself.
    channel : AsyncChannel
        Its connection.
    opened : float
        When it came, in seconds since 1970.
    group : WorkerGroup or None
        Its workers; also while they start or end.
    nodes : set of str
        The nodes on which it has had workers.
    """

    session_id: int
    software: str
    channel: AsyncChannel
    opened: float = field(default_factory=time.time)
    group: WorkerGroup | None = None
    nodes: set[str] = field(default_factory=set)

    async def to_row(self) -> dict[str, Any]:
        """Return the status of the session and of its workers that answer in time."""
        return {
            "id": self.session_id,
            "software": self.software,
            "client": self.channel.peer,
            "age_seconds": time.time() - self.opened,
            "workers": await self.group.status() if self.group else [],
        }
