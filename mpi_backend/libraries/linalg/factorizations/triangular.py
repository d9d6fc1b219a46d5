"""Triangular systems on a grid of ranks, with many right-hand sides, in place.

Works by panels of the triangle, which are broadcast along the rows of the grid. Without transpose, the rows of X that a
panel determines are broadcast along the columns of the grid, and the remaining rows are updated. With the transpose,
each column of the grid adds up the contributions of the known rows of X to the next ones, and the rank that holds these
solves for them. So only local pieces of the triangle are transposed.

Source: R. van de Geijn, E. S. Quintana-Ortí, *The Science of Programming Matrix Computations* (2008), section 5.4, in
the variants that move the triangle only along rows.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from alchemist_ray.mpi_backend.libraries.linalg.factorizations.panels import Blocked, broadcast
from alchemist_ray.mpi_backend.libraries.linalg.local_blas import solve_triangle, subtract_product

Array = npt.NDArray[Any]
Form = Literal["N", "T", "C"]
"""The matrix itself, its transpose, or its conjugate transpose; as in LAPACK."""

WIDTH = 256


def solve_triangular(T: Blocked, X: Blocked, form: Form = "N", *, lower: bool, unit: bool = False) -> None:
    """Overwrite X with the solution of op(T) Y = X. Collective over the ranks of the grid.

    Parameters
    ----------
    T : Blocked, n x n
        Only its `lower` or upper triangle is read, without the diagonal if `unit`.
    X : Blocked, n x nrhs
        On the same grid, in blocks with the same number of rows.
    form : {"N", "T", "C"}
        The op.
    """
    n = T.shape[0]
    panels = list(T.panels(n, WIDTH))
    if lower != (form == "N"):
        panels.reverse()
    step = _forward if form == "N" else _transposed
    for start, stop in panels:
        rows = (start, n) if lower else (0, stop)  # of the panel: the diagonal block and the rest of the triangle
        mine = T.part(rows, (start, stop))
        held = mine if T.holds_col(start) else None
        panel = broadcast(T.along_row, T.col_owner(start), held, (mine.shape[0], stop - start), X.local.dtype)
        at = T.rows.local_range(start, stop)
        first = T.rows.local_range(0, rows[0])[1]
        diagonal = panel[at[0] - first : at[1] - first]
        off_diagonal = panel[at[1] - first :] if lower else panel[: at[0] - first]
        rest = (stop, n) if lower else (0, start)
        step(X, (start, stop), rest, diagonal, off_diagonal, form, lower, unit)


def _forward(
    X: Blocked,
    rows: tuple[int, int],
    rest: tuple[int, int],
    diagonal: Array,
    off_diagonal: Array,
    form: Form,
    lower: bool,
    unit: bool,
) -> None:
    """Solve for some rows of X, and update the other rows with them. Collective over a column of the grid."""
    every = (0, X.shape[1])
    mine = X.part(rows, every)
    if X.holds_row(rows[0]):
        solve_triangle(diagonal, mine, lower=lower, unit=unit)
    shape = (rows[1] - rows[0], X.cols.size)
    known = broadcast(X.along_col, X.row_owner(rows[0]), mine, shape, X.local.dtype)
    subtract_product(X.part(rest, every), off_diagonal, known)


def _transposed(
    X: Blocked,
    rows: tuple[int, int],
    rest: tuple[int, int],
    diagonal: Array,
    off_diagonal: Array,
    form: Form,
    lower: bool,
    unit: bool,
) -> None:
    """Update some rows of X with the known rows, and solve for them. Collective over a column of the grid."""
    every = (0, X.shape[1])
    if form == "C":
        diagonal, off_diagonal = diagonal.conj(), off_diagonal.conj()
    known = np.zeros((rows[1] - rows[0], X.cols.size), X.local.dtype)
    subtract_product(known, off_diagonal.T, X.part(rest, every))
    root = X.row_owner(rows[0])
    total = np.empty_like(known)
    X.along_col.Reduce(known, total, root=root)
    if X.along_col.rank == root:
        mine = X.part(rows, every)
        mine += total
        solve_triangle(diagonal.T, mine, lower=not lower, unit=unit)
