"""The settings that a node agent gets: from its command line, or as JSON from the process that starts it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from alchemist_ray.errors import NodeError
from alchemist_ray.protocol.server_options import FORK, unused_mpiexec


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """The settings of a node agent.

    Attributes
    ----------
    driver : (str, int)
        Where the driver listens.
    token : str
        The server's token.
    slots : int
        Number of ranks that the node offers to run; they may be more than its cores.
    name : str
        Name of the node on the server, different from those of all other nodes.
    labels : mapping
        Labels that clients may ask for.
    address : str
        Address at which clients and other nodes reach the ranks; empty: that from which the agent reaches the driver.
    bind : str
        Interface on which the ranks listen; empty: `address`.
    log_dir : str
        Directory of the logs; empty: a temporary one.
    wait : float
        Seconds for which the agent tries to join the driver; also when it has lost it.
    driver_grace : float
        Seconds for which ranks go on after the driver was lost, if it does not come back sooner. The agent looks for
        the driver for so long at least.
    mpi : {"fork", "site"}
        Whether the ranks are forked from a warm process, or the site's own MPI starts them.
    mpiexec : str
        The command that starts MPI jobs at this site, with its options; empty: ``mpiexec``.
    python : str
        The Python that runs the ranks; empty: the agent's own.
    shares : int
        Number of equal shares of the node's memory and cores, of which each rank has one; at least `slots`.

    Raises
    ------
    NodeError
        If `mpiexec` is given and nothing would use it.
    """

    driver: tuple[str, int]
    token: str = field(repr=False)
    slots: int
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    bind: str = ""
    log_dir: str = ""
    wait: float = 30.0
    driver_grace: float = 0.0
    mpi: str = FORK
    mpiexec: str = ""
    python: str = ""
    shares: int = 0

    def __post_init__(self) -> None:
        if complaint := unused_mpiexec(self.mpi, self.mpiexec):
            raise NodeError(complaint)

    def to_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> NodeSettings:
        """Return the settings that :meth:`to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "driver": tuple(fields["driver"])})
