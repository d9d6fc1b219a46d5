"""Who has which cells of a square grid, and the exchange of those at the borders.

The ranks form a grid of rows and columns, as nearly square as their number allows (``MPI_Dims_create``), and so does
the block of cells of each. A block is stored with `halo` cells of its neighbours around it. A wide halo is exchanged
once for `halo` stages of an explicit scheme, each of which leaves one ring less of it valid; the rings are computed
twice, here and by the neighbour, which costs less than the messages saved. Columns go first, then rows over the whole
padded width, so that corners arrive without messages of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

Array = npt.NDArray[Any]


class CellBlock:
    """The cells of one rank, of an n x n grid.

    Parameters
    ----------
    comm : MPI.Comm
        Its ranks share the grid. Only :meth:`exchange` and :meth:`gather` communicate.
    n : int
        Cells in each direction; at least as many as :func:`process_grid` has rows.
    halo : int
        How many cells of a neighbour to keep; no more than the smallest block has are kept.

    Attributes
    ----------
    y, x : slice
        The cells of this rank, of 0 .. n - 1.
    shape : tuple of int
        Of the padded array.
    interior : tuple of slice
        This rank's own cells in the padded array.
    owned : ndarray of 4 ints
        The same: first row, end, first column, end.
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
        """Return padded arrays of zeros, with other axes before those of the block. Local."""
        return np.zeros((*leading, *self.shape))

    def region(self, margin: int) -> tuple[int, int, int, int]:
        """Return this rank's own cells and `margin` rings of its neighbours': first row, end, first column, end."""
        west, east, south, north = (0 if wall else margin for wall in self.walls)
        i0, i1, j0, j1 = (int(bound) for bound in self.owned)
        return i0 - south, i1 + north, j0 - west, j1 + east

    def along_edges(self, values: Array) -> Array:
        """Return, of values per cell along the edges (4, n), those that lie beside this padded block.

        Returns
        -------
        ndarray, shape (4, the longer side of the padded block)
            West and east by rows, south and north by columns; in halos that stick out of the grid the last value.
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
        """Exchange columns, which are packed for it; `cuts` are halo, own, own, halo, ascending."""
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
        """Exchange rows, which are contiguous over the padded width, in place."""
        low_halo, low_own, high_own, high_halo = cuts
        south, north = self._y_neighbours
        requests = []
        for layer in stacked:
            requests += [self._comm.Irecv(layer[low_halo], south), self._comm.Irecv(layer[high_halo], north)]
        for layer in stacked:
            requests += [self._comm.Isend(layer[low_own], south), self._comm.Isend(layer[high_own], north)]
        MPI.Request.Waitall(requests)

    def gather(self, cells: Array) -> Array | None:
        """Return the whole grid on rank 0, from the own cells of all ranks. Collective."""
        parts = self._comm.gather(np.ascontiguousarray(cells))
        if parts is None:
            return None
        whole = np.empty((self._n, self._n))
        for rank, part in enumerate(parts):
            whole[self._cells(rank)] = part
        return whole


def process_grid(size: int) -> tuple[int, int]:
    """Return the rows and columns of the grid of `size` ranks, rows first the more."""
    rows, columns = MPI.Compute_dims(size, 2)
    return int(rows), int(columns)


def _cuts(first: int, end: int, width: int) -> list[slice]:
    return [
        slice(first - width, first),
        slice(first, first + width),
        slice(end - width, end),
        slice(end, end + width),
    ]
