"""Cholesky factorisation on a grid of ranks: A = L L^H, in place.

Right-looking, by panels. The rank that holds the diagonal block factors it. The ranks of its column of the grid solve
for the panel below it, and broadcast the panel along the rows of the grid. A rank also needs the rows of the panel with
the numbers of its own columns; it gathers them within its column of the grid. Only the lower triangle is read, written
and updated: n^3/3 operations.

The upper factor, A = U^H U, is the lower factor of the transpose, whose blocks are the same ones seen through ``.T``.

Source: J. Choi, J. Dongarra, S. Ostrouchov, A. Petitet, D. Walker, R. C. Whaley, *Design and implementation of the
ScaLAPACK LU, QR and Cholesky factorization routines*, Scientific Programming 5 (1996), section 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.panels import Blocked, blocked, broadcast, gathered_rows
from alchemist_ray.mpi_backend.libraries.linalg.local_blas import lapack, solve_triangle, subtract_product

Array = npt.NDArray[Any]

WIDTH = 256
"""Columns of a panel."""

_STRIP = 384
"""Columns that are updated at a time; the part of a strip above the diagonal is wasted work."""


def decompose(ctx: TaskContext, A: DistMatrix, lower: bool) -> int:
    """Overwrite one triangle of `A`, in square blocks on a grid, with L if `lower`, else with U. Collective over comm.

    Returns
    -------
    order : int
        0, or the order of the first leading minor that is not positive; then `A` is unusable. The same on all ranks.
    """
    n = A.shape[0]
    with blocked(A) as (M,):
        M = M if lower else M.T
        for start, stop in M.panels(n, WIDTH):
            order = _step(M, start, stop)
            if order:
                return start + order
            ctx.check_cancelled()
            ctx.progress(stop, n, "Cholesky")
    return 0


def _step(M: Blocked, start: int, stop: int) -> int:
    """Compute columns ``start .. stop-1`` of L and update the later ones. Collective over the ranks of the grid."""
    n, width = M.shape[0], stop - start
    order = np.zeros(1, np.int64)
    if M.holds_col(start):
        order[0] = _factor_panel(M, start, stop)
    M.along_row.Bcast(order, M.col_owner(start))
    if order[0]:
        return int(order[0])
    mine = M.part((stop, n), (start, stop)) if M.holds_col(start) else None
    below = M.part((stop, n), (0, 0)).shape[0]
    L = broadcast(M.along_row, M.col_owner(start), mine, (below, width), M.local.dtype)
    _update(M, stop, L, _for_columns(M, stop, L))
    return 0


def _factor_panel(M: Blocked, start: int, stop: int) -> int:
    """Overwrite this rank's part of the panel; return 0 or the order of the minor. Collective over a grid column."""
    width, root = stop - start, M.row_owner(start)
    diagonal = np.zeros((width + 1, width), M.local.dtype)  # the last row carries LAPACK's info
    if M.holds_row(start):
        block = M.part((start, stop), (start, stop))
        diagonal[:width], diagonal[width, 0] = lapack("potrf", block)(block, lower=True, clean=True)
        lower = np.tri(width, dtype=bool)
        block[lower] = diagonal[:width][lower]
    M.along_col.Bcast(diagonal, root)
    order = int(diagonal[width, 0].real)
    if not order:
        # L21 L11^H = A21, i.e. conj(L11) L21^T = A21^T
        L21 = M.part((stop, M.shape[0]), (start, stop))
        solve_triangle(diagonal[:width].conj(), L21.T, lower=True)
    return order


def _for_columns(M: Blocked, stop: int, L: Array) -> Array:
    """Return the rows of the panel with the numbers of this rank's columns. Collective over a grid column.

    `L` has the panel's rows from `stop` on in this rank's row of the grid.
    """
    wanted = M.cols.indices()[M.cols.local_range(0, stop)[1] :]
    owner = M.row_owner(wanted)
    mine = M.rows.to_local(wanted[owner == M.along_col.rank]) - M.rows.local_range(0, stop)[1]
    gathered = gathered_rows(M.along_col, L[mine], np.bincount(owner, minlength=M.along_col.size).tolist())
    if M.along_col.size == 1:
        return gathered
    rows = np.empty_like(gathered)
    rows[np.argsort(owner, kind="stable")] = gathered
    return rows


def _update(M: Blocked, stop: int, L: Array, for_columns: Array) -> None:
    """Subtract L L^H from the lower triangle of the matrix after the panel. Local."""
    first_row, first_col = M.rows.local_range(0, stop)[1], M.cols.local_range(0, stop)[1]
    right = for_columns.conj().T
    for col in range(first_col, M.cols.size, _STRIP):
        last = min(col + _STRIP, M.cols.size)
        row = M.rows.local_range(0, M.cols.to_global(col))[1]
        subtract_product(M.local[row:, col:last], L[row - first_row :], right[:, col - first_col : last - first_col])
