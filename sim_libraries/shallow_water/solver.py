"""The solver of the shallow-water equations on a distributed grid: ghost cells, boundaries, lengths of time steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError, SimulationDivergedError
from alchemist_ray.sim_libraries.shallow_water.decomposition import CellRectangle, Exchange
from alchemist_ray.sim_libraries.shallow_water.kernels import GHOSTS, GRAVITY, compiled, make_scratch, stage

Doubles = npt.NDArray[np.float64]
INSIDE = (slice(GHOSTS, -GHOSTS), slice(GHOSTS, -GHOSTS))
_SHORTEST = 1e-4
"""A step shorter than this fraction of the step for still water counts as divergence."""


@dataclass(frozen=True)
class CellGrid:
    """Cells of equal size.

    Attributes
    ----------
    nx, ny : int
        Number of cells along x and y.
    dx, dy : float
        Size of a cell in m.
    """

    nx: int
    ny: int
    dx: float
    dy: float


@compiled
def _mirror(state: Any, west: bool, east: bool, south: bool, north: bool) -> None:
    """Fill the ghosts behind walls with the mirrored cells in front of them, with reversed normal velocity."""
    ny, nx = state.shape[1] - 2 * GHOSTS, state.shape[2] - 2 * GHOSTS
    for f in range(3):
        across, along = -1.0 if f == 1 else 1.0, -1.0 if f == 2 else 1.0
        for g in range(GHOSTS):
            for j in range(state.shape[1]):
                if west:
                    state[f, j, GHOSTS - 1 - g] = across * state[f, j, GHOSTS + g]
                if east:
                    state[f, j, nx + GHOSTS + g] = across * state[f, j, nx + GHOSTS - 1 - g]
            for i in range(state.shape[2]):
                if south:
                    state[f, GHOSTS - 1 - g, i] = along * state[f, GHOSTS + g, i]
                if north:
                    state[f, ny + GHOSTS + g, i] = along * state[f, ny + GHOSTS - 1 - g, i]


@compiled
def _let_in(state: Any, eta: Any, u: Any, v: Any, still: float) -> None:
    """Fill the western ghosts. The incoming Riemann invariant comes from the given waves, the outgoing from inside."""
    for row in range(eta.size):
        j = row + GHOSTS
        incoming = u[row] + 2.0 * math.sqrt(GRAVITY * max(still + eta[row], 0.0))
        outgoing = state[1, j, GHOSTS] - 2.0 * math.sqrt(GRAVITY * state[0, j, GHOSTS])
        c = 0.25 * (incoming - outgoing)
        for i in range(GHOSTS):
            state[0, j, i] = c * c / GRAVITY
            state[1, j, i] = 0.5 * (incoming + outgoing)
            state[2, j, i] = v[row]


class Solver:
    """The solver for shallow water over a given bed, between walls or with incoming waves from the west.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks. Every method is collective over them unless it says otherwise.
    grid : CellGrid
        The cells. The first column begins at x = 0, the first row at y = 0.
    bed : callable
        ``bed(x, y)`` returns the height of the bed in m at arrays of places.
    cfl : float
        Value of dt max((|u| + c)/dx + (|v| + c)/dy), at most 1/2.
    drag : float
        Coefficient C_d of the bed drag C_d |U| U.
    incoming : callable, optional
        ``incoming(t)`` returns surface elevation, u and v of the incoming waves at x = 0, in this rank's rows. Without
        it there is a wall.
    task : str
        Name of the task in error messages.

    Attributes
    ----------
    rectangle : CellRectangle
        This rank's cells.
    state : ndarray, shape (3, ny + 4, nx + 4)
        h, u and v of this rank, with ghosts.
    bed : ndarray, shape (ny + 4, nx + 4)
        Height of the bed in m.
    force : ndarray, shape (ny + 4, nx + 4)
        Acceleration along x in m/s^2.
    time : float
        Simulated time in s.
    fastest_at_rest : float
        Rate (1/dx + 1/dy) sqrt(g H) in the deepest still water, in 1/s.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        grid: CellGrid,
        bed: Callable[[Doubles, Doubles], Doubles],
        *,
        cfl: float = 0.5,
        drag: float = 0.0,
        incoming: Callable[[float], tuple[Doubles, Doubles, Doubles]] | None = None,
        task: str = "shallow_water",
    ) -> None:
        self.comm, self.grid, self.cfl, self.drag, self.incoming, self.task = comm, grid, cfl, drag, incoming, task
        self.rectangle = CellRectangle.of(comm, grid.ny, grid.nx)
        smallest = comm.allreduce(min(self.rectangle.shape), MPI.MIN)
        if smallest < GHOSTS:
            raise ArgumentValueError(
                task,
                f"nx and ny are too small: with {grid.nx} x {grid.ny} cells on {comm.size} ranks, the rectangle of a "
                f"rank is only {smallest} cells wide, and must be {GHOSTS}",
            )
        self._exchange = Exchange(comm, self.rectangle)
        self._walls = tuple(
            rank == MPI.PROC_NULL
            for rank in (self.rectangle.west, self.rectangle.east, self.rectangle.south, self.rectangle.north)
        )
        x, y = self.places(GHOSTS)
        ghosted = (self.rectangle.shape[0] + 2 * GHOSTS, self.rectangle.shape[1] + 2 * GHOSTS)
        self.state = np.zeros((3, *ghosted))
        self.state[0] = np.broadcast_to(bed(x, y), ghosted)
        _mirror(self.state, *self._walls)
        self.bed = self.state[0].copy()
        self.state[0] = 0.0
        self.force = np.zeros(ghosted)
        self._next, self._scratch = np.zeros_like(self.state), make_scratch()
        deepest = max(comm.allreduce(-float(self.bed.min()), MPI.MAX), 1.0)
        self.fastest_at_rest = math.sqrt(GRAVITY * deepest) * (1 / grid.dx + 1 / grid.dy)
        self._fastest, self.time = 0.0, 0.0

    def places(self, ghosts: int = 0) -> tuple[Doubles, Doubles]:
        """Return x (1, n) and y (m, 1) of the centres of this rank's cells and `ghosts` layers around them. Local."""
        rows, columns = self.rectangle.rows, self.rectangle.columns
        i = np.arange(columns.start - ghosts, columns.stop + ghosts)
        j = np.arange(rows.start - ghosts, rows.stop + ghosts)
        return (i[None, :] + 0.5) * self.grid.dx, (j[:, None] + 0.5) * self.grid.dy

    def begin(self, h: Doubles, u: Doubles | float = 0.0, v: Doubles | float = 0.0, time: float = 0.0) -> None:
        """Set depth (m) and velocity (m/s) of this rank's cells, and the time (s)."""
        for field, values in zip(self.state, (h, u, v), strict=True):
            field[INSIDE] = values
        self.time = time
        self._fastest = self._agreed(self._local_rate())

    def advance(self, duration: float) -> int:
        """Advance by `duration` seconds and return the number of steps. Steps have equal length as far as speeds allow.

        Raises
        ------
        SimulationDivergedError
            If the flow is no longer finite, or so fast that steps become vanishingly short; on all ranks.
        """
        end, steps = self.time + duration, 0
        remaining = duration
        while remaining > 0:
            if not self._fastest * _SHORTEST < self.fastest_at_rest:
                raise SimulationDivergedError(self.task, f"the flow is not finite at {self.time:.6g} s")
            left = max(1, math.ceil(remaining * self._fastest / self.cfl * (1 - 1e-12)))
            self._step(remaining / left)
            steps += 1
            remaining = 0.0 if left == 1 else end - self.time
        self.time = end
        return steps

    def _step(self, dt: float) -> None:
        self._stage(self.state, self._next, dt, 0.0, self.time)
        rate = self._stage(self._next, self.state, dt, 0.5, self.time + dt)
        self._fastest = self._agreed(rate)
        self.time += dt

    def _stage(self, state: Doubles, out: Doubles, dt: float, old: float, time: float) -> float:
        self._exchange.run(state)
        _mirror(state, *self._walls)
        if self.incoming is not None and self._walls[0]:
            _let_in(state, *self.incoming(time), -self.bed[GHOSTS, GHOSTS])
        return float(
            stage(state, self.bed, self.state, out, self.force,
                  self.grid.dx, self.grid.dy, dt, self.drag, old, self._scratch)
        )  # fmt: skip

    def _local_rate(self) -> float:
        h, u, v = (field[INSIDE] for field in self.state)
        c = np.sqrt(GRAVITY * h)
        return float(((np.abs(u) + c) / self.grid.dx + (np.abs(v) + c) / self.grid.dy).max())

    def _agreed(self, rate: float) -> float:
        """Return the largest rate of all ranks; infinity if the rate of a rank is not finite."""
        mine, largest = np.array([rate if math.isfinite(rate) else math.inf]), np.empty(1)
        self.comm.Allreduce(mine, largest, MPI.MAX)
        return float(largest[0])

    def total(self, values: Doubles) -> float | None:
        """Return the integral over the whole area, on rank 0. `values` has one value for each of this rank's cells."""
        summed = self.comm.reduce(float(values.sum()))
        return None if summed is None else summed * self.grid.dx * self.grid.dy

    def whole(self, values: Doubles) -> Doubles | None:
        """Return the values of all ranks' cells as one array (ny, nx), on rank 0."""
        parts = self.comm.gather((self.rectangle.rows, self.rectangle.columns, np.ascontiguousarray(values)))
        if parts is None:
            return None
        whole = np.empty((self.grid.ny, self.grid.nx))
        for rows, columns, part in parts:
            whole[rows, columns] = part
        return whole

    def snapshot(self) -> dict[str, Any]:
        """Return the state from which :meth:`restore` continues bit for bit. Local."""
        return {"state": self.state.copy(), "time": self.time, "fastest": self._fastest}

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue from the result of :meth:`snapshot`. Local."""
        self.state[:] = kept["state"]
        self.time, self._fastest = kept["time"], kept["fastest"]
