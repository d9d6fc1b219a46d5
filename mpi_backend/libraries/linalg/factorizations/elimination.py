"""Gaussian elimination with partial pivoting on a grid of ranks: A = P L U, in place.

Right-looking, by panels. The ranks that share a panel's columns gather the panel, and each of them factors the whole of
it with LAPACK, which saves messages for every column. Then each broadcasts its rows of the panel along its row of the
grid. The rows to exchange are gathered within each column of the grid, which also gives all ranks there the new rows of
U. One product updates the rest of the matrix at the speed of BLAS. All ranks share the 2/3 m n^2 operations of the
updates; panels of w columns take another w m n operations, by one column of the grid at a time.

We do not call p?getrf: it is slower on processors that MKL does not favour, and it would exchange columns, because it
sees our row-major blocks as transposes.

Source: J. Dongarra, R. van de Geijn, D. Walker, *Scalability issues affecting the design of a dense linear algebra
library*, J. Parallel Distrib. Comput. 22 (1994), section 3; the panel as in the HPL benchmark, but replicated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.panels import Blocked, blocked, broadcast, gathered_rows
from alchemist_ray.mpi_backend.libraries.linalg.local_blas import lapack, solve_triangle, subtract_product

Array = npt.NDArray[Any]
Pivots = npt.NDArray[np.int64]

WIDTH = 128
"""Columns of a panel: few enough for a cheap factorisation, many enough for products at full speed."""


def eliminate(ctx: TaskContext, A: DistMatrix) -> Pivots:
    """Overwrite `A`, in square blocks on a grid, with L (without its unit diagonal) and U. Collective over comm.

    Returns
    -------
    piv : ndarray of int64, shape (min(m, n),)
        On every rank: row i was exchanged with row ``piv[i]``, for each i in turn, as in LAPACK.
    """
    p = min(A.shape)
    piv = np.empty(p, np.int64)
    with blocked(A) as (M,):
        for start, stop in M.panels(p, WIDTH):
            piv[start:stop] = _step(M, start, stop)
            ctx.check_cancelled()
            ctx.progress(stop, p, "LU")
    return piv


def _step(M: Blocked, start: int, stop: int) -> Pivots:
    """Eliminate columns ``start .. stop-1`` and return their pivots. Collective over the ranks of the grid."""
    (m, n), width, root = M.shape, stop - start, M.col_owner(start)
    below = M.part((start, m), (0, 0)).shape[0]
    panel, piv = _factored_panel(M, start, stop) if M.holds_col(start) else (None, np.empty(width, np.int64))
    M.along_row.Bcast(piv, root)
    L = broadcast(M.along_row, root, panel, (width + below, width), M.local.dtype)
    top = _exchange_rows(M, start, stop, piv)
    U12 = top[:, M.cols.local_range(0, stop)[1] :]
    solve_triangle(L[:width], U12, lower=True, unit=True)
    if M.holds_row(start):
        M.part((start, stop), (stop, n))[...] = U12
    trailing = M.part((stop, m), (stop, n))
    subtract_product(trailing, L[L.shape[0] - trailing.shape[0] :], U12)
    return piv + start


def _factored_panel(M: Blocked, start: int, stop: int) -> tuple[Array, Pivots]:
    """Factor columns ``start .. stop-1`` from row `start` on. Collective over the ranks that hold these columns.

    Returns
    -------
    L : ndarray
        The first ``stop - start`` rows of LAPACK's result, and then all rows of it that this rank holds.
    piv : ndarray of int64
        The pivots, counted from `start`.
    """
    m, width = M.shape[0], stop - start
    held = [part.indices()[part.local_range(0, start)[1] :] - start for part in M.row_parts()]
    mine = M.part((start, m), (start, stop))
    panel = np.empty((m - start, width), M.local.dtype, "F")
    panel[np.concatenate(held)] = gathered_rows(M.along_col, mine, [rows.size for rows in held])
    LU, piv, _ = lapack("getrf", panel)(panel, overwrite_a=True)
    own = LU[held[M.along_col.rank]]
    mine[...] = own
    return np.concatenate([LU[:width], own]), piv.astype(np.int64)


def _exchange_rows(M: Blocked, start: int, stop: int, piv: Pivots) -> Array:
    """Exchange rows outside the panel's columns; return rows ``start .. stop-1``. Collective over a grid column."""
    width = stop - start
    order = permutation(piv, M.shape[0] - start)
    moved = np.union1d(np.arange(width), piv)
    owner = M.row_owner(moved + start)
    by_owner = np.argsort(owner, kind="stable")
    place = np.empty(M.shape[0] - start, np.int64)  # index of each row among the gathered ones
    place[moved[by_owner]] = np.arange(moved.size)
    mine = moved[owner == M.along_col.rank]
    at = M.rows.to_local(mine + start)
    rows = gathered_rows(M.along_col, M.local[at], np.bincount(owner, minlength=M.along_col.size).tolist())
    first, last = M.cols.local_range(start, stop)
    new = rows[place[order[mine]]]
    M.local[at, :first] = new[:, :first]
    M.local[at, last:] = new[:, last:]
    return rows[place[order[:width]]]


def diagonal(A: DistMatrix) -> Array:
    """Return the diagonal of `A`, whose layout must hold each element once, on every rank. Collective over comm."""
    whole = np.zeros(min(A.shape), A.dtype)
    held = np.intersect1d(A.rows.indices(), A.cols.indices())
    whole[held] = A.local[A.rows.to_local(held), A.cols.to_local(held)]
    A.comm.Allreduce(MPI.IN_PLACE, whole)
    return whole


def permutation(piv: Pivots, m: int) -> Pivots:
    """Return for each of `m` rows its index before the exchanges `piv`. Local."""
    order = np.arange(m)
    for i, p in enumerate(piv.tolist()):
        if p != i:
            order[i], order[p] = order[p], order[i]
    return order
