"""Shared parts of the blocked factorisations: a matrix in square blocks on a grid, and the exchange of its panels.

A :class:`Blocked` is a distributed matrix in square blocks, or its transpose (the same blocks seen through ``.T``, with
rows and columns of the grid exchanged), together with the communicators of this rank's row and column of the grid.
Indices are global. Blocks are distributed in ascending order, so the local part of ``i .. m-1`` is always the end of
the local block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts.layout import AxisPart
from alchemist_ray.mpi_backend.ali import DistMatrix

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Blocked:
    """A matrix, or its transpose, in square blocks on a grid.

    Attributes
    ----------
    shape : (int, int)
        Shape of the whole matrix.
    block : int
        Rows and columns of a block.
    local : ndarray
        This rank's block, C-ordered, or Fortran-ordered if it is a transpose.
    rows, cols : AxisPart
        The rows and columns that this rank holds.
    along_row, along_col : MPI.Comm
        The ranks of this rank's row of the grid, in the order of its columns; and of its column, in the order of its
        rows.
    """

    shape: tuple[int, int]
    block: int
    local: Array
    rows: AxisPart
    cols: AxisPart
    along_row: MPI.Comm
    along_col: MPI.Comm

    @property
    def T(self) -> Blocked:
        """The transpose, in the same memory."""
        m, n = self.shape
        return Blocked((n, m), self.block, self.local.T, self.cols, self.rows, self.along_col, self.along_row)

    def row_owner(self, i: Any) -> Any:
        """Return the row of the grid that holds row `i` (an int, or an integer array)."""
        return i // self.block % self.along_col.size

    def col_owner(self, j: Any) -> Any:
        """Return the column of the grid that holds column `j` (an int, or an integer array)."""
        return j // self.block % self.along_row.size

    def holds_row(self, i: int) -> bool:
        """Whether this rank holds a part of row `i`."""
        return bool(self.row_owner(i) == self.along_col.rank)

    def holds_col(self, j: int) -> bool:
        """Whether this rank holds a part of column `j`."""
        return bool(self.col_owner(j) == self.along_row.rank)

    def part(self, rows: tuple[int, int], cols: tuple[int, int]) -> Array:
        """Return a view of this rank's part of some rows and columns."""
        return self.local[slice(*self.rows.local_range(*rows)), slice(*self.cols.local_range(*cols))]

    def panels(self, extent: int, width: int) -> Iterator[tuple[int, int]]:
        """Yield the panels of ``0 .. extent-1``, each inside one block: first index, and last index plus one."""
        for start in range(0, extent, self.block):
            stop = min(start + self.block, extent)
            for first in range(start, stop, width):
                yield first, min(first + width, stop)

    def row_parts(self) -> list[AxisPart]:
        """Return the rows of each rank in this column of the grid."""
        return [dataclasses.replace(self.rows, position=p) for p in range(self.along_col.size)]


@contextmanager
def blocked(A: DistMatrix, *others: DistMatrix) -> Iterator[tuple[Blocked, ...]]:
    """Yield matrices in MC_MR, on one grid and with the same row blocks, as :class:`Blocked`. Collective over comm."""
    grid, rank = A.layout.grid, A.comm.rank
    myrow, mycol = grid.coords(rank)
    along_row, along_col = A.comm.Split(myrow, mycol), A.comm.Split(mycol, myrow)
    try:
        yield tuple(
            Blocked(B.shape, B.layout.block[0], B.local, B.rows, B.cols, along_row, along_col) for B in (A, *others)
        )
    finally:
        along_row.Free()
        along_col.Free()


def gathered_rows(comm: MPI.Comm, mine: Array, counts: list[int]) -> Array:
    """Return the rows of all ranks of `comm`, in the order of the ranks: ``counts[p]`` of rank p. Collective."""
    if comm.size == 1:
        return mine
    width = mine.shape[1]
    whole = np.empty((sum(counts), width), mine.dtype)
    comm.Allgatherv(np.ascontiguousarray(mine), [whole, [count * width for count in counts]])
    return whole


def broadcast(comm: MPI.Comm, root: int, piece: Array | None, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Return the root's `piece` on all ranks of `comm`, C-ordered. Collective."""
    packed = np.empty(shape, dtype) if comm.rank != root or piece is None else np.ascontiguousarray(piece)
    comm.Bcast(packed, root)
    return packed


def permute_rows(X: Blocked, order: npt.NDArray[np.int64]) -> None:
    """Overwrite row i of X with its old row ``order[i]``, for all i. Collective over each column of the grid."""
    comm = X.along_col
    mine = order[X.rows.indices()]
    if comm.size == 1:
        X.local[...] = X.local[mine]
        return
    wanted = [order[part.indices()] for part in X.row_parts()]
    sent = [X.rows.to_local(rows[X.row_owner(rows) == comm.rank]) for rows in wanted]
    owner, width = X.row_owner(mine), X.cols.size
    received = np.empty_like(X.local)
    comm.Alltoallv(
        [X.local[np.concatenate(sent)], [rows.size * width for rows in sent]],
        [received, (np.bincount(owner, minlength=comm.size) * width).tolist()],
    )
    X.local[np.argsort(owner, kind="stable")] = received
