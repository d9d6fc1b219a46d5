"""Cholesky factorisation of distributed matrices, and solving with its factor."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems, whole_factorizations
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.systems import (
    Cholesky,
    require_regular,
    require_rows,
    require_square,
    scaled_triangle,
)
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import on_grid
from alchemist_ray.mpi_backend.libraries.linalg.scaling import shift_exponents
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole

Array = npt.NDArray[Any]


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
    if small_problems.suits("cholesky", A.shape):

        def work(A: Array) -> Whole:
            factor, exponent = whole_factorizations.cholesky_factor(ctx.task, A, lower)
            if exponent:
                shift_exponents(factor, -exponent)
            return Whole(factor)

        return cast("DistMatrix", small_problems.solved(ctx, work, A=A))
    checks.require_finite(ctx, A=A)
    decomposed = Cholesky.of(ctx, A, lower)
    factor = decomposed.factor
    if decomposed.exponent:
        shift_exponents(factor.local, -decomposed.exponent)
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
    if small_problems.suits("cho_solve", c.shape, b.shape):
        layout = b.layout

        def work(c: Array, b: Array) -> Whole:
            _require_same_triangle(ctx, bool(np.tril(c, -1).any()), bool(np.triu(c, 1).any()), lower)
            whole_factorizations.require_regular(ctx.task, c)
            c, b = np.asarray(c, dtype, "F"), np.asarray(b, dtype, "F")
            return Whole(whole_factorizations.solve_by_cholesky(c, b, lower=lower), layout)

        return cast("DistMatrix", small_problems.solved(ctx, work, c=c, b=b))
    checks.require_finite(ctx, c=c, b=b)
    factor = on_grid(checks.converted(c, dtype))
    _require_triangle(ctx, factor, lower)
    factor, exponent = scaled_triangle(factor, lower, require_regular(ctx, factor), twice=True)
    return Cholesky(factor, lower, exponent).solve(b)


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
    _require_same_triangle(ctx, bool(filled[0]), bool(filled[1]), lower)


def _require_same_triangle(ctx: TaskContext, below: bool, above: bool, lower: bool) -> None:
    """Check that a factor with or without elements `below` and `above` its diagonal is the one for `lower`. Local.

    Raises
    ------
    ArgumentValueError
        If it is the other one.
    """
    if (above if lower else below) and not (below if lower else above):
        found, word = ("upper", "False") if lower else ("lower", "True")
        raise ArgumentValueError(ctx.task, f"c is {found} triangular: pass lower={word}, as to cholesky")
