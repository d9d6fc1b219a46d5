"""The distribution of a square grid of cells over ranks, and the exchange of halos.

The ranks form a grid of rows and columns that is as square as possible (``MPI_Dims_create``), and each rank has a block
of cells. A block is stored with `halo` cells of its neighbours around it. The halo is exchanged once in `halo` stages
of an explicit scheme; each stage leaves one ring less of it valid. Both neighbours compute the rings, which costs less
than the messages that are saved. Columns are exchanged first, then rows over the whole padded width, so that corners
need no messages of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

Array = npt.NDArray[Any]


class CellBlock:
    """The block of one rank in an n x n grid of cells.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the grid. Only :meth:`exchange` and :meth:`gather` communicate.
    n : int
        Cells in each direction; at least the number of rows of :func:`process_grid`.
    halo : int
        Width of the halo in cells. It is limited to the size of the smallest block.

    Attributes
    ----------
    y, x : slice
        Rows and columns of this rank's cells, within 0 .. n - 1.
    shape : tuple of int
        Shape of the padded array.
    interior : tuple of slice
        This rank's own cells in the padded array.
    owned : ndarray of 4 ints
        The same cells as numbers: first row, end, first column, end.
    walls : ndarray of 4 bools
        Whether the block ends at the edge of the grid: west (low x), east, south (low y), north.
    halo : int
        The width of the halo.
    """

    def __init__(self, comm: MPI.Comm, n: int, halo: int) -> None:
        self._comm, self._n = comm, n
        self._grid = rows, columns = process_grid(comm.size)
        row, column = divmod(comm.rank, columns)
        self.y, self.x = self._cells(comm.rank)
        self.halo = w = max(1, min(halo, n // max(rows, columns)))
        ny, nx = self.y.stop - self.y.start, self.x.stop - self.x.start
        self.shape = (ny + 2 * w, nx + 2 * w)
        self.interior = (slice(w, w + ny), slice(w, w + nx))
        self.owned = np.array([w, w + ny, w, w + nx])
        self.walls = np.array([column == 0, column == columns - 1, row == 0, row == rows - 1])
        self._x_neighbours = self._neighbour(row, column - 1), self._neighbour(row, column + 1)
        self._y_neighbours = self._neighbour(row - 1, column), self._neighbour(row + 1, column)

    def _cells(self, rank: int) -> tuple[slice, slice]:
        (rows, columns), n = self._grid, self._n
        row, column = divmod(rank, columns)
        return (
            slice(n * row // rows, n * (row + 1) // rows),
            slice(n * column // columns, n * (column + 1) // columns),
        )

    def _neighbour(self, row: int, column: int) -> int:
        rows, columns = self._grid
        inside = 0 <= row < rows and 0 <= column < columns
        return row * columns + column if inside else MPI.PROC_NULL

    def padded(self, *leading: int) -> Array:
        """Return a padded array of zeros, with `leading` axes before those of the block. Local."""
        return np.zeros((*leading, *self.shape))

    def region(self, margin: int) -> tuple[int, int, int, int]:
        """Return this rank's cells and `margin` rings of its neighbours' cells: first row, end, first column, end."""
        west, east, south, north = (0 if wall else margin for wall in self.walls)
        i0, i1, j0, j1 = (int(bound) for bound in self.owned)
        return i0 - south, i1 + north, j0 - west, j1 + east

    def along_edges(self, values: Array) -> Array:
        """Return the part next to this padded block of values for each cell along the edges.

        Parameters
        ----------
        values : ndarray, shape (4, n)
            One value for each cell along the west, east, south and north edge.

        Returns
        -------
        ndarray, shape (4, the longer side of the padded block)
            West and east by rows, south and north by columns. Halo cells outside the grid get the last value.
        """
        beside = np.zeros((4, max(self.shape)))
        for edge in range(4):
            cells = self.y if edge < 2 else self.x
            index = np.arange(cells.start - self.halo, cells.stop + self.halo).clip(0, self._n - 1)
            beside[edge, : index.size] = values[edge, index]
        return beside

    def exchange(self, stacked: Array) -> None:
        """Fill the halos of padded arrays, shape (count, rows, columns), from the neighbours. Collective."""
        i0, i1, j0, j1 = self.owned
        self._exchange_columns(stacked[:, self.interior[0]], _cuts(j0, j1, self.halo))
        self._exchange_rows(stacked, _cuts(i0, i1, self.halo))

    def _exchange_columns(self, rows: Array, cuts: list[slice]) -> None:
        """Exchange columns, which are packed for that. `cuts` are halo, own, own, halo in ascending order."""
        low_halo, low_own, high_own, high_halo = cuts
        neighbours = [
            (rank, np.ascontiguousarray(rows[..., own]), halo)
            for rank, own, halo in zip(self._x_neighbours, (low_own, high_own), (low_halo, high_halo), strict=True)
            if rank != MPI.PROC_NULL
        ]
        incoming = [np.empty_like(packed) for _, packed, _ in neighbours]
        requests = [self._comm.Irecv(into, rank) for into, (rank, _, _) in zip(incoming, neighbours, strict=True)]
        requests += [self._comm.Isend(packed, rank) for rank, packed, _ in neighbours]
        MPI.Request.Waitall(requests)
        for into, (_, _, halo) in zip(incoming, neighbours, strict=True):
            rows[..., halo] = into

    def _exchange_rows(self, stacked: Array, cuts: list[slice]) -> None:
        """Exchange rows in place. They are contiguous over the padded width."""
        low_halo, low_own, high_own, high_halo = cuts
        south, north = self._y_neighbours
        requests = []
        for layer in stacked:
            requests += [self._comm.Irecv(layer[low_halo], south), self._comm.Irecv(layer[high_halo], north)]
        for layer in stacked:
            requests += [self._comm.Isend(layer[low_own], south), self._comm.Isend(layer[high_own], north)]
        MPI.Request.Waitall(requests)

    def gather(self, cells: Array) -> Array | None:
        """Return the whole grid on rank 0, put together from the cells of all ranks. Collective."""
        parts = self._comm.gather(np.ascontiguousarray(cells))
        if parts is None:
            return None
        whole = np.empty((self._n, self._n))
        for rank, part in enumerate(parts):
            whole[self._cells(rank)] = part
        return whole


def process_grid(size: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of a grid of `size` ranks; there are at least as many rows."""
    rows, columns = MPI.Compute_dims(size, 2)
    return int(rows), int(columns)


def _cuts(first: int, end: int, width: int) -> list[slice]:
    return [
        slice(first - width, first),
        slice(first, first + width),
        slice(end - width, end),
        slice(end, end + width),
    ]
