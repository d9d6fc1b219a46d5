"""The configuration of the ranks of a worker group on one host."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from alchemist_ray.protocol.server_options import WorkerOptions

ENVIRONMENT = "ALCHEMIST_WORKER"
"""Environment variable that carries a :class:`WorkerConfig` to ranks that the site's own MPI starts. It is secret, so
it must not be in argv."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """The configuration of the ranks of a group on one host.

    Attributes
    ----------
    group_id, ticket : int, str
        Number and ticket of the group. The ticket is the key of every connection to its workers.
    world : str
        Name of the group's MPI world.
    size : int
        Number of ranks of the whole group.
    first_rank : int
        The first rank on this host; those that follow are here too, one for each of `worker_ids`.
    worker_ids : list of int
        Number of each rank's worker on the server.
    slots : list of int
        Number of each rank's slot on this host, from 0.
    bind, advertise : str
        Interface to listen on, and the address that clients use.
    memory : int
        Bytes that each rank has for matrices.
    threads : int
        BLAS threads of each rank.
    environment : dict
        Environment variables of the ranks, mainly those of their MPI library.
    options : WorkerOptions
        The server's options, as far as its workers need them; data directories are absolute.
    log_dir : str
        Directory of the workers' logs.
    scratch : str
        Directory in which each rank has its working directory.
    agent : (str, int) or None
        Where ranks that the site's own MPI has started reach the node agent; None: they inherit a connection.
    agent_host : str
        Name of the agent's host. Such a rank may be on another host, and then listens on an address of its own.
    """

    group_id: int
    ticket: str
    world: str
    size: int
    first_rank: int
    worker_ids: list[int]
    slots: list[int]
    bind: str
    advertise: str
    memory: int
    threads: int
    environment: dict[str, str]
    options: WorkerOptions
    log_dir: str
    scratch: str
    agent: tuple[str, int] | None = None
    agent_host: str = ""

    @property
    def local_ranks(self) -> range:
        """The ranks on this host."""
        return range(self.first_rank, self.first_rank + len(self.worker_ids))

    def name_of(self, rank: int) -> str:
        """Return the name of a rank's worker, as its log has it."""
        return f"worker-{self.worker_ids[rank - self.first_rank]:03d}"

    def log_of(self, rank: int) -> str:
        """Return the path of a rank's log."""
        return f"{self.log_dir}/{self.name_of(rank)}.log"

    def directory_of(self, rank: int) -> str:
        """Return the path of a rank's working directory."""
        return f"{self.scratch}/rank-{rank}"

    def port_of(self, rank: int) -> int:
        """Return the port that a rank listens on if it is free; 0: any."""
        ports = self.options.worker_ports
        return ports[0] + self.slots[rank - self.first_rank] if ports else 0

    def to_json(self) -> str:
        """Return the configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> WorkerConfig:
        """Return the configuration that :meth:`to_json` wrote."""
        fields = json.loads(text)
        agent = tuple(fields["agent"]) if fields["agent"] else None
        return cls(**{**fields, "options": WorkerOptions.of(fields["options"]), "agent": agent})
