"""Cholesky factorisation of distributed matrices, and solving with its factor."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.systems import (
    Cholesky,
    require_regular,
    require_rows,
    require_square,
)
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import on_grid


@task
def cholesky(ctx: TaskContext, A: DistMatrix, lower: bool = False) -> DistMatrix:
    """Return the Cholesky factor of a symmetric or Hermitian positive definite matrix.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix. Only its upper triangle is read, or its lower one if `lower`.
    lower : bool
        Whether to return L of A = L L^H instead of U of A = U^H U.

    Returns
    -------
    c : DistMatrix, shape (n, n)
        U or L, in MC_MR; the other triangle is exactly zero. :func:`cho_solve` solves with it.

    Raises
    ------
    ArgumentError
        If A is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If A is not square.
    NonFiniteError
        If A contains NaN or Inf, in either triangle.
    NotPositiveDefiniteError
        If A is not positive definite; the error names the first leading minor that is not positive.

    Notes
    -----
    n^3/3 operations (four times that in complex numbers), at the speed of BLAS; one copy of A. See
    :mod:`.positive_definite`.
    """
    checks.require_floating(ctx, A=A)
    require_square(ctx, A=A)
    checks.require_finite(ctx, A=A)
    factor = Cholesky.of(ctx, A, lower).factor
    for iloc, i in enumerate(factor.rows.indices().tolist()):
        row = factor.local[iloc]
        if lower:
            row[factor.cols.local_range(0, min(i + 1, A.shape[1]))[1] :] = 0
        else:
            row[: factor.cols.local_range(0, i)[1]] = 0
    return factor


@task
def cho_solve(ctx: TaskContext, c: DistMatrix, b: DistMatrix, lower: bool = False) -> DistMatrix:
    """Return x such that A x = b, given the factor of A from :func:`cholesky`.

    Parameters
    ----------
    c : DistMatrix, shape (n, n)
        The factor. Only its upper triangle is read, or its lower one if `lower`.
    b : DistMatrix, shape (n, nrhs)
        Right-hand sides. If the dtypes differ, NumPy's result type is used.
    lower : bool
        Whether the factor is L, instead of U.

    Returns
    -------
    x : DistMatrix, shape (n, nrhs)
        In the layout of b.

    Raises
    ------
    ArgumentError
        If a matrix is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If c is not square, or b has a different number of rows; if c is lower triangular without `lower`, or upper
        triangular with it.
    NonFiniteError
        If c or b contains NaN or Inf.
    SingularMatrixError
        If an element of the factor's diagonal is exactly zero.

    Notes
    -----
    2 n^2 nrhs operations; two copies of b, and one of c if it is not in MC_MR in square blocks.
    """
    dtype = checks.require_floating(ctx, c=c, b=b)
    require_square(ctx, c=c)
    require_rows(ctx, c.shape[0], b)
    checks.require_finite(ctx, c=c, b=b)
    factor = on_grid(checks.converted(c, dtype))
    _require_triangle(ctx, factor, lower)
    require_regular(ctx, factor)
    return Cholesky(factor, lower).solve(b)


def _require_triangle(ctx: TaskContext, c: DistMatrix, lower: bool) -> None:
    """Check that a factor is not the wrong one of U and L, which has only zeros in the triangle to read. Collective.

    Raises
    ------
    ArgumentValueError
        On every rank, if it is.
    """
    filled = np.zeros(2, bool)  # below the diagonal, and above it
    for iloc, i in enumerate(c.rows.indices().tolist()):
        filled[0] |= not filled[0] and c.local[iloc, : c.cols.local_range(0, i)[1]].any()
        filled[1] |= not filled[1] and c.local[iloc, c.cols.local_range(0, min(i + 1, c.shape[1]))[1] :].any()
    ctx.comm.Allreduce(MPI.IN_PLACE, filled, MPI.LOR)
    if filled[int(lower)] and not filled[int(not lower)]:
        found, word = ("upper", "False") if lower else ("lower", "True")
        raise ArgumentValueError(ctx.task, f"c is {found} triangular: pass lower={word}, as to cholesky")
