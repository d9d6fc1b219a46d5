"""The ranks of a group divided into teams, each of which runs some of the simulations of a batch.

A *team* is a sub-communicator of `ranks_each` ranks; rank 0 of a team leads it. The simulations of a team have
consecutive numbers, and those of the first team, which rank 0 of the group leads, come first. So the results of the
leaders, one after the other, are in the order of the simulations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.protocol.values import decode, encode


class Teams:
    """The teams of a batch. Made, and freed, collectively over `comm`.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks of the group.
    task : str
        Who asks, for messages.
    count : int
        Number of simulations.
    ranks_each : int
        Ranks of a team; 0: an equal share for each simulation, at least one. Ranks that are left over are idle.

    Attributes
    ----------
    comm : MPI.Comm
        This rank's team; COMM_NULL if the rank is left over.
    leaders : MPI.Comm
        The leaders of all teams, in the order of the teams; COMM_NULL on other ranks.
    number : int
        Of this rank's team; -1 if the rank is left over.
    starts : list of int
        The first simulation of each team, and at the end `count`.

    Raises
    ------
    ArgumentValueError
        If the numbers make no sense: on every rank.
    """

    def __init__(self, comm: MPI.Comm, task: str, count: int, ranks_each: int) -> None:
        if count < 1:
            raise ArgumentValueError(task, f"a batch has at least 1 simulation, not {count}")
        if not 0 <= ranks_each <= comm.size:
            raise ArgumentValueError(
                task, f"a simulation cannot have {ranks_each} ranks: the group has {comm.size} in all"
            )
        self.ranks_each = ranks_each or max(1, comm.size // count)
        self.teams = min(comm.size // self.ranks_each, count)
        self.starts = [count * team // self.teams for team in range(self.teams + 1)]
        number = comm.rank // self.ranks_each
        self.number = number if number < self.teams else -1
        self.comm = comm.Split(self.number if self.number >= 0 else MPI.UNDEFINED, comm.rank)
        self.leads = self.number >= 0 and self.comm.rank == 0
        self.leaders = comm.Split(0 if self.leads else MPI.UNDEFINED, comm.rank)

    @property
    def own(self) -> range:
        """The simulations of this rank's team; none if the rank is left over."""
        return range(self.starts[self.number], self.starts[self.number + 1]) if self.number >= 0 else range(0)

    def team_of(self, simulation: int) -> int:
        """Return the number of the team that runs a simulation."""
        return int(np.searchsorted(self.starts, simulation, side="right")) - 1

    def any_of(self, flags: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return, element by element, the greatest that a rank of the team has. Collective over the team."""
        if self.comm.size > 1:
            self.comm.Allreduce(MPI.IN_PLACE, flags, MPI.MAX)
        return flags

    def collect(self, value: Any) -> list[Any] | None:
        """Return the values of all leaders on rank 0 of the group, None elsewhere. Collective over the leaders.

        `value` is made of types that the wire carries.
        """
        if not self.leads:
            return None
        octets = encode(value)
        lengths = self.leaders.gather(len(octets))
        if lengths is None:
            self.leaders.Send([octets, MPI.BYTE], dest=0)
            return None
        collected = [value]
        for leader, length in enumerate(lengths[1:], 1):
            received = bytearray(length)
            self.leaders.Recv([received, MPI.BYTE], source=leader)
            collected.append(decode(received))
        return collected

    def free(self) -> None:
        """Free the communicators. Collective over the group."""
        for comm in (self.comm, self.leaders):
            if comm != MPI.COMM_NULL:
                comm.Free()
