"""A worker slot: a place on a host for one rank."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """Room for one worker."""

    worker_id: int
    host: str

    @property
    def name(self) -> str:
        """The worker's name, ``Worker-1`` and so on."""
        return f"Worker-{self.worker_id}"
