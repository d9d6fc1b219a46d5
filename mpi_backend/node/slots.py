"""A worker slot: a place on a node for one rank."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """Room for one worker.

    Attributes
    ----------
    worker_id : int
        Its number on the server.
    node : str
        Name of its node.
    index : int
        Its number on the node, from 0.
    """

    worker_id: int
    node: str
    index: int = 0

    @property
    def name(self) -> str:
        """The worker's name, ``Worker-1`` and so on."""
        return f"Worker-{self.worker_id}"
