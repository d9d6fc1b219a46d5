"""The address of a worker group: all that a process needs to read and write its matrices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Endpoint:
    """One worker.

    Attributes
    ----------
    worker_id, rank : int
        Its number on the server, and its rank in the group.
    host : str
        Its host name, for messages.
    address, port : str, int
        Where it listens on TCP.
    socket_name : str
        Name of its abstract Unix socket, on its own host.
    """

    worker_id: int
    rank: int
    host: str
    address: str
    port: int
    socket_name: str

    def __str__(self) -> str:
        return f"Worker-{self.worker_id} on {self.host} at {self.address}:{self.port}"


@dataclass(frozen=True)
class GroupAddress:
    """The address of a worker group. A process that has it can read and write the group's matrices; it pickles.

    Attributes
    ----------
    group_id : int
        The group's number on its server.
    session : str
        Name of the session that owns it, for messages.
    ticket : str
        The key to its workers.
    endpoints : tuple of Endpoint
        The workers, by rank.
    transport : str
        ``"auto"`` or ``"tcp"``: whether shared memory is tried first.
    """

    group_id: int
    session: str
    ticket: str = field(repr=False)
    endpoints: tuple[Endpoint, ...]
    transport: str = "auto"

    @property
    def session_id(self) -> int:
        """Number of the session on its server."""
        return int(self.session.partition("@")[0] or 0)

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.endpoints)

    @classmethod
    def from_wire(cls, granted: dict[str, Any], session: str, hostname: str, transport: str) -> GroupAddress:
        """Return the address of a group that the driver at `hostname` has granted."""
        endpoints = tuple(
            Endpoint(
                worker_id=row["id"],
                rank=row["rank"],
                host=row["host"],
                # A worker that listens on all interfaces is reached at its driver's address.
                address=hostname if row["address"] in ("0.0.0.0", "::", "") else row["address"],  # noqa: S104
                port=row["port"],
                socket_name=row["socket_name"],
            )
            for row in granted["workers"]
        )
        return cls(granted["group_id"], session, granted["ticket"], endpoints, transport)
