"""What the driver tells the ranks of a worker group. No MPI here: the driver imports it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

ENVIRONMENT = "ALCHEMIST_WORKER"
"""Environment variable that carries a :class:`WorkerConfig` to the ranks; a secret, so it is never in argv."""


@dataclass(frozen=True)
class WorkerConfig:
    """What the driver tells the ranks of a group.

    Attributes
    ----------
    driver : (str, int)
        Where the driver listens.
    group_id, ticket : int, str
        Of the group; the ticket is the key of every connection to and from its workers.
    worker_ids : list of int
        Number of each rank's worker on the server, by rank.
    bind, advertise : str
        Interface to listen on, and the address that clients are told.
    ports : (int, int) or None
        Range of ports to listen on; None: any.
    memory : int
        Bytes for matrices.
    libraries, allow_library_paths : dict, bool
        What the server's owner has registered, and whether clients may name a path themselves.
    data_directories : list of str
        Directories under which tasks may read and write files that a client names.
    log_dir : str
        Where this worker's log goes.
    scratch : str
        Where each rank makes its scratch directory when a library asks for it.
    """

    driver: tuple[str, int]
    group_id: int
    ticket: str
    worker_ids: list[int]
    bind: str
    advertise: str
    ports: tuple[int, int] | None
    memory: int
    libraries: dict[str, str]
    allow_library_paths: bool
    data_directories: list[str]
    log_dir: str
    scratch: str

    def to_json(self) -> str:
        """Return the configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerConfig:
        """Return the configuration that :meth:`to_json` wrote."""
        fields = json.loads(text)
        ports = tuple(fields["ports"]) if fields["ports"] else None
        return cls(**{**fields, "driver": tuple(fields["driver"]), "ports": ports})
