"""The configuration that the driver passes to the ranks of a worker group."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from alchemist_ray.protocol.server_options import WorkerOptions

ENVIRONMENT = "ALCHEMIST_WORKER"
"""Environment variable that carries a :class:`WorkerConfig` to the ranks. It is secret, so it must not be in argv."""


@dataclass(frozen=True)
class WorkerConfig:
    """The configuration of the ranks of a group.

    Attributes
    ----------
    driver : (str, int)
        Address at which the driver listens.
    group_id, ticket : int, str
        Number and ticket of the group. The ticket is the key of every connection to and from its workers.
    worker_ids : list of int
        Number of each rank's worker on the server, by rank.
    bind, advertise : str
        Interface to listen on, and the address that clients use.
    memory : int
        Bytes for matrices.
    options : WorkerOptions
        The server's options, as far as its workers need them; data directories are absolute.
    log_dir : str
        Directory of the workers' logs.
    scratch : str
        Directory in which each rank makes its scratch directory when a library asks for it.
    """

    driver: tuple[str, int]
    group_id: int
    ticket: str
    worker_ids: list[int]
    bind: str
    advertise: str
    memory: int
    options: WorkerOptions
    log_dir: str
    scratch: str

    def to_json(self) -> str:
        """Return the configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerConfig:
        """Return the configuration that :meth:`to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "driver": tuple(fields["driver"]), "options": WorkerOptions.of(fields["options"])})
