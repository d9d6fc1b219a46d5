"""The flow in the channel, divided into strips of columns over the ranks of a communicator.

Each rank holds its strip and `HALO` columns of each neighbour. It advances up to `HALO` time steps between two
exchanges, and computes some columns of its neighbours itself. A step of the default channel takes tens of microseconds,
so an exchange in every step would cost as much as the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from alchemist_ray.sim_libraries.cylinder_flow import lattice
from alchemist_ray.sim_libraries.cylinder_flow.geometry import ChannelGeometry
from alchemist_ray.sim_libraries.cylinder_flow.lattice import CX, CY, SOUND, WEIGHT, Array

HALO = 15
ANCHOR = 0.01


@dataclass(frozen=True)
class FlowState:
    """One rank's part of the state of a flow: populations after collision, and the speed of the actuator."""

    populations: Array
    speed: float


class ChannelFlow:
    """Flow past a cylinder in a channel.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the channel; each gets at least `HALO` columns.
    channel : ChannelGeometry
        The channel at its resolution.
    reynolds : float
        Reynolds number of the mean inflow velocity and the diameter.
    u_max : float
        Largest inflow velocity, in lattice units.
    actuation : str
        ``"rotation"`` or ``"jets"``.
    """

    def __init__(
        self, comm: MPI.Comm, channel: ChannelGeometry, reynolds: float, u_max: float, actuation: str = "rotation"
    ) -> None:
        self.comm, self.channel = comm, channel
        self.u_mean = 2 / 3 * u_max
        self.viscosity = self.u_mean * channel.resolution / reynolds
        self._inflow = channel.inflow(u_max)
        self._rates = lattice.relaxation_rates(self.viscosity)
        self._outlet = (SOUND + self.u_mean, ANCHOR)
        self._divide(actuation)
        self.speed = 0.0
        self.begin()

    def _divide(self, actuation: str) -> None:
        """Find the columns of this rank, their fluid nodes, and their links to the cylinder."""
        rank, size, nx = self.comm.rank, self.comm.size, self.channel.nx
        self.first, self.last = map(int, self.channel.strips(size, HALO)[rank : rank + 2])
        self._neighbours = (rank > 0, rank < size - 1)
        left, right = (HALO if there else 1 for there in self._neighbours)
        self._own = (left, left + self.last - self.first)
        self._width = self._own[1] + right
        origin = self.first - left
        begin, end = max(origin, 0), min(self.last + right, nx)
        self._spans = self.channel.spans(begin, end) + np.array([1, -origin, -origin])
        links = self.channel.links(actuation)
        near = (links.places[:, 0] > begin) & (links.places[:, 0] < end - 1)
        self._places = links.places[near] + np.array([-origin, 1, 0, 0, 0, 0])
        self._numbers = links.numbers[near]

    def begin(self) -> None:
        """Start with the inflow velocity everywhere, deflected around the cylinder. Local."""
        columns = self.first - self._own[0] + np.arange(self._width)
        jx, jy = self.u_mean * self.channel.start(columns)
        self._f = np.zeros((2, 9, self.channel.ny + 2, self._width))
        for i in range(9):
            along = CX[i] * jx + CY[i] * jy
            self._f[0, i, 1:-1] = WEIGHT[i] * (3 * along + 4.5 * along**2 - 1.5 * (jx**2 + jy**2))
        self._f[1] = self._f[0]
        self._current = 0
        self.speed = 0.0

    def advance(self, speeds: Array) -> Array:
        """Advance by ``len(speeds)`` time steps. *Collective over comm*.

        Parameters
        ----------
        speeds : ndarray, shape (n,)
            Speed of the actuator in each time step, in lattice units.

        Returns
        -------
        ndarray, shape (n, 3)
            Force in x, force in y, and power of the force on the moving wall in each time step, in lattice units. All
            ranks get the sum over the cylinder.
        """
        forces = np.empty((len(speeds), 3))
        for begin in range(0, len(speeds), HALO if self.comm.size > 1 else max(len(speeds), 1)):
            part = speeds[begin : begin + HALO] if self.comm.size > 1 else speeds
            self._exchange()
            lattice.advance(
                self._f, self._current, self._spans, self._places, self._numbers, self._inflow, self._own,
                self._neighbours, self._rates, self._outlet, part, forces[begin : begin + len(part)],
            )  # fmt: skip
            self._current = (self._current + len(part)) % 2
        if len(speeds):
            self.speed = float(speeds[-1])
        if self.comm.size > 1:
            self.comm.Allreduce(MPI.IN_PLACE, forces)
        return forces

    @property
    def time_unit(self) -> float:
        """D/U in time steps."""
        return self.channel.resolution / self.u_mean

    def coefficients(self, forces: Array) -> Array:
        """Return the coefficients of drag, lift and power, shape (n, 3). Local.

        Forces are divided by rho U^2 D / 2, and powers by rho U^3 D / 2.
        """
        scale = 0.5 * self.u_mean**2 * self.channel.resolution
        return forces / (scale * np.array([1.0, 1.0, self.u_mean]))

    def _exchange(self) -> None:
        """Fetch the columns of the neighbours' strips. Collective."""
        f, (first, last) = self._f[self._current], self._own
        sides = ((-1, slice(first, first + HALO), slice(0, first)), (1, slice(last - HALO, last), slice(last, None)))
        waiting, arrived = [], []
        for (step, sent, ghosts), there in zip(sides, self._neighbours, strict=True):
            if there:
                peer = self.comm.rank + step
                outgoing = np.ascontiguousarray(f[:, :, sent])
                incoming = np.empty_like(outgoing)
                waiting += [self.comm.Irecv(incoming, peer), self.comm.Isend(outgoing, peer)]
                arrived.append((ghosts, incoming))
        MPI.Request.Waitall(waiting)
        for ghosts, incoming in arrived:
            f[:, :, ghosts] = incoming

    def state(self) -> FlowState:
        """Return a copy of this rank's part of the state. Local."""
        return FlowState(self._f[self._current].copy(), self.speed)

    def set_state(self, state: FlowState) -> None:
        """Continue from a state. Local."""
        self._f[0] = self._f[1] = state.populations
        self._current, self.speed = 0, state.speed

    def moments(self) -> Array:
        """Return density - 1 and momentum of this rank's strip, shape (3, ny, columns). Local."""
        return _moments(self._f[self._current, :, 1:-1, self._own[0] : self._own[1]])

    def probe(self, x: Array, y: Array) -> Array:
        """Return density - 1 and momentum at nodes of the whole channel, shape (3, n), on rank 0. Collective."""
        here = (self.first <= x) & (x < self.last)
        seen = np.zeros((3, len(x)))
        seen[:, here] = _moments(self._f[self._current][:, y[here] + 1, x[here] - self.first + self._own[0]])
        if self.comm.size > 1:
            self.comm.Reduce(MPI.IN_PLACE if self.comm.rank == 0 else seen, seen)
        return seen

    def gather(self) -> Array | None:
        """Return the moments of the whole channel, shape (3, ny, nx), on rank 0. *Collective over comm*."""
        parts = self.comm.gather(self.moments())
        return np.concatenate(parts, axis=2) if parts is not None else None


def _moments(f: Array) -> Array:
    return np.stack([f.sum(axis=0), np.tensordot(CX, f, 1), np.tensordot(CY, f, 1)])
