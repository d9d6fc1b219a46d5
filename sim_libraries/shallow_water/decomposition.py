"""The distribution of a grid of cells in rectangles over a two-dimensional process grid, and the exchange of ghosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.sim_libraries.shallow_water.kernels import GHOSTS, compiled

Doubles = npt.NDArray[np.float64]
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class CellRectangle:
    """The rectangle of cells of one rank.

    Attributes
    ----------
    rows, columns : slice
        Its rows and columns in the whole grid.
    west, east, south, north : int
        The neighbouring ranks; ``MPI.PROC_NULL`` at the edges of the grid.
    """

    rows: slice
    columns: slice
    west: int
    east: int
    south: int
    north: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @classmethod
    def of(cls, comm: MPI.Comm, ny: int, nx: int) -> CellRectangle:
        """Return the rectangle of this rank. Local."""
        nprow, npcol = process_grid(comm.size, ny, nx)
        myrow, mycol = divmod(comm.rank, npcol)
        return cls(
            slice(ny * myrow // nprow, ny * (myrow + 1) // nprow),
            slice(nx * mycol // npcol, nx * (mycol + 1) // npcol),
            comm.rank - 1 if mycol > 0 else MPI.PROC_NULL,
            comm.rank + 1 if mycol < npcol - 1 else MPI.PROC_NULL,
            comm.rank - npcol if myrow > 0 else MPI.PROC_NULL,
            comm.rank + npcol if myrow < nprow - 1 else MPI.PROC_NULL,
        )


def process_grid(size: int, ny: int, nx: int) -> tuple[int, int]:
    """Return the numbers of process rows and columns with the shortest borders between ranks. Local."""
    pairs = [(nprow, size // nprow) for nprow in range(1, size + 1) if size % nprow == 0]
    return min(pairs, key=lambda pair: ((pair[0] - 1) * nx + (pair[1] - 1) * ny, pair))


@compiled
def _gather(state: Any, j0: int, j1: int, i0: int, i1: int, buffer: Any) -> None:
    n = 0
    for f in range(state.shape[0]):
        for j in range(j0, j1):
            for i in range(i0, i1):
                buffer[n] = state[f, j, i]
                n += 1


@compiled
def _scatter(state: Any, j0: int, j1: int, i0: int, i1: int, buffer: Any) -> None:
    n = 0
    for f in range(state.shape[0]):
        for j in range(j0, j1):
            for i in range(i0, i1):
                state[f, j, i] = buffer[n]
                n += 1


class Exchange:
    """Fills the ghost cells of arrays (3, ny + 4, nx + 4) from the neighbours.

    Corners are not exchanged, since the scheme treats each direction by itself.

    Parameters
    ----------
    comm : MPI.Comm
        All ranks of the grid.
    rectangle : CellRectangle
        The rectangle of this rank.
    """

    def __init__(self, comm: MPI.Comm, rectangle: CellRectangle) -> None:
        ny, nx = rectangle.shape
        g, rows, columns = GHOSTS, (GHOSTS, ny + GHOSTS), (GHOSTS, nx + GHOSTS)
        # For each side: the neighbour, the windows (j0, j1, i0, i1) to send and to receive, and the tags of both.
        sides: list[tuple[int, Window, Window, int, int]] = [
            (rectangle.west, (*rows, g, 2 * g), (*rows, 0, g), 0, 1),
            (rectangle.east, (*rows, nx, nx + g), (*rows, nx + g, nx + 2 * g), 1, 0),
            (rectangle.south, (g, 2 * g, *columns), (0, g, *columns), 2, 3),
            (rectangle.north, (ny, ny + g, *columns), (ny + g, ny + 2 * g, *columns), 3, 2),
        ]
        self._comm = comm
        self._outgoing: list[tuple[Window, Doubles, int, int]] = []
        self._incoming: list[tuple[Window, Doubles, int, int]] = []
        for rank, inner, outer, sent, awaited in sides:
            if rank != MPI.PROC_NULL:
                length = 3 * (inner[1] - inner[0]) * (inner[3] - inner[2])
                self._outgoing.append((inner, np.empty(length), rank, sent))
                self._incoming.append((outer, np.empty(length), rank, awaited))

    def run(self, state: Doubles) -> None:
        """Fill the ghost cells that belong to neighbours. Collective over comm."""
        requests = [self._comm.Irecv(buffer, rank, tag) for _, buffer, rank, tag in self._incoming]
        for window, buffer, rank, tag in self._outgoing:
            _gather(state, *window, buffer)
            requests.append(self._comm.Isend(buffer, rank, tag))
        MPI.Request.Waitall(requests)
        for window, buffer, _, _ in self._incoming:
            _scatter(state, *window, buffer)
