"""LU factorisation of distributed matrices, solving with its factors, and determinants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.libraries.linalg.factorizations import elimination
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.panels import blocked, permute_rows
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.systems import (
    LU,
    require_regular,
    require_rows,
    require_square,
)
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.triangular import Form
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import grid_copy, leading_columns, leading_rows, on_grid
from alchemist_ray.mpi_backend.libraries.linalg.scaling import shift_exponents

Array = npt.NDArray[Any]

_FORMS: tuple[Form, ...] = ("N", "T", "C")

_EXTREME = 1000
"""A pivot with a larger exponent is near the limits of the range of doubles."""


@task
def lu(ctx: TaskContext, A: DistMatrix, permute_l: bool = False, p_indices: bool = False) -> tuple[Any, ...]:
    """Return the pivoted LU factorisation A = P L U.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, of any shape and rank.
    permute_l : bool
        Return P L instead of P and L.
    p_indices : bool
        Return P as a vector of row numbers; ignored with `permute_l`.

    Returns
    -------
    P : DistMatrix, shape (m, m), or with `p_indices` p : ndarray of int64, shape (m,)
        The permutation matrix, with the type of A; or the vector for which ``A == L[p] @ U``. Omitted with `permute_l`.
    L : DistMatrix, shape (m, k)
        Lower triangular with a unit diagonal, ``k = min(m, n)``; with `permute_l`, P L.
    U : DistMatrix, shape (k, n)
        Upper triangular. All matrices are in MC_MR.

    Raises
    ------
    ArgumentError
        If A is not float32, float64, complex64 or complex128.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    2/3 n^3 operations for a square matrix (four times that in complex numbers), at the speed of BLAS, and up to three
    copies of A. Partial pivoting of rows, as in LAPACK. See :mod:`.elimination`.
    """
    checks.require_floating(ctx, A=A)
    checks.require_finite(ctx, A=A)
    work = grid_copy(A)
    piv = elimination.eliminate(ctx, work)
    k = min(A.shape)
    U = _triangle(leading_rows(work, k), lower=False)
    L = _triangle(leading_columns(work, k), lower=True)
    p = np.argsort(elimination.permutation(piv, A.shape[0]))
    if permute_l:
        with blocked(L) as (rows,):
            permute_rows(rows, p)
        return L, U
    if p_indices:
        return p, L, U
    return permutation_matrix(ctx, p, L), L, U


@task
def lu_factor(ctx: TaskContext, A: DistMatrix) -> tuple[DistMatrix, npt.NDArray[np.int64]]:
    """Return the pivoted LU factorisation of a matrix in the form for :func:`lu_solve`.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix.

    Returns
    -------
    lu : DistMatrix, shape (m, n)
        U in the upper triangle, and below it L without its unit diagonal; in MC_MR.
    piv : ndarray of int64, shape (min(m, n),)
        Row i was exchanged with row ``piv[i]``, for each i in turn.

    Raises
    ------
    ArgumentError
        If A is not float32, float64, complex64 or complex128.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    Cost of :func:`lu`, with one copy of A.
    """
    checks.require_floating(ctx, A=A)
    checks.require_finite(ctx, A=A)
    work = grid_copy(A)
    return work, elimination.eliminate(ctx, work)


@task
def lu_solve(ctx: TaskContext, lu: DistMatrix, piv: npt.NDArray[Any], b: DistMatrix, trans: int = 0) -> DistMatrix:
    """Return x such that op(A) x = b, given the factors of A from :func:`lu_factor`.

    Parameters
    ----------
    lu : DistMatrix, shape (n, n)
        The factors.
    piv : ndarray of int, shape (n,)
        The pivots.
    b : DistMatrix, shape (n, nrhs)
        Right-hand sides. If the dtypes differ, NumPy's result type is used.
    trans : {0, 1, 2}
        Whether op(A) is A, its transpose, or its conjugate transpose.

    Returns
    -------
    x : DistMatrix, shape (n, nrhs)
        In the layout of b.

    Raises
    ------
    ArgumentError
        If a matrix is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If shapes do not fit, `piv` does not hold row numbers, or `trans` is not valid.
    NonFiniteError
        If b contains NaN or Inf.
    SingularMatrixError
        If a pivot is exactly zero.

    Notes
    -----
    2 n^2 nrhs operations; two copies of b, and one of `lu` if it is not in MC_MR in square blocks.
    """
    dtype = checks.require_floating(ctx, lu=lu, b=b)
    require_square(ctx, lu=lu)
    require_rows(ctx, lu.shape[0], b)
    rows = np.asarray(piv)
    if rows.shape != lu.shape[:1] or rows.dtype.kind not in "iu" or not ((rows >= 0) & (rows < rows.size)).all():
        raise ArgumentValueError(ctx.task, f"piv must hold {lu.shape[0]} row numbers, as lu_factor returns them")
    if trans not in (0, 1, 2):
        raise ArgumentValueError(ctx.task, f"trans must be 0, 1 (transpose) or 2 (conjugate transpose), not {trans}")
    checks.require_finite(ctx, b=b)
    factors = LU(on_grid(checks.converted(lu, dtype)), rows.astype(np.int64))
    require_regular(ctx, factors.factors)
    return factors.solve(ctx, b, _FORMS[trans])


@task
def det(ctx: TaskContext, A: DistMatrix) -> float | complex:
    """Return the determinant of a square matrix.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix.

    Returns
    -------
    float or complex
        Computed in double precision from the factors. Infinite or zero only if the determinant itself overflows or
        underflows a double, not if an intermediate product would; for such matrices use :func:`slogdet`.

    Raises
    ------
    ArgumentError
        If A is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If A is not square.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    Cost of :func:`lu_factor`.
    """
    phase, magnitudes, exponent = _determinant(ctx, A)
    fraction = 1.0
    for start in range(0, magnitudes.size, 512):  # a product of 512 fractions of at least 1/2 does not underflow
        fractions, exponents = np.frexp(magnitudes[start : start + 512])
        fraction, more = math.frexp(fraction * float(fractions.prod()))
        exponent += more + int(exponents.sum(dtype=np.int64))
    try:
        magnitude = math.ldexp(fraction, exponent)
    except OverflowError:
        magnitude = math.inf
    return _times(phase, magnitude) if A.dtype.kind == "c" else phase * magnitude


@task
def slogdet(ctx: TaskContext, A: DistMatrix) -> tuple[float | complex, float]:
    """Return the sign and the natural logarithm of the determinant of a square matrix.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix.

    Returns
    -------
    sign : float or complex
        1, -1 or 0; for a complex matrix a number of magnitude 1, or 0.
    logabsdet : float
        The logarithm of the magnitude; ``-inf`` if the determinant is zero.

    Raises
    ------
    ArgumentError
        If A is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If A is not square.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    Cost of :func:`lu_factor`. The name and the meaning are NumPy's (``numpy.linalg.slogdet``).
    """
    phase, magnitudes, exponent = _determinant(ctx, A)
    if (magnitudes == 0).any():
        return phase * 0, -math.inf
    return phase, math.fsum([*np.log(magnitudes), exponent * math.log(2)])


def permutation_matrix(ctx: TaskContext, p: npt.NDArray[np.int64], like: DistMatrix) -> DistMatrix:
    """Return the matrix P with ``P @ L == L[p]``, in MC_MR, with the type of `like`. Collective over comm."""
    P = checks.allocated(ctx, (p.size, p.size), like.dtype, "MC_MR")
    P.local[...] = p[P.rows.indices()][:, np.newaxis] == P.cols.indices()
    return P


def _triangle(A: DistMatrix, *, lower: bool) -> DistMatrix:
    """Overwrite `A` with its upper triangle, or with its lower triangle and a unit diagonal. Local."""
    rows, cols = A.rows.indices()[:, np.newaxis], A.cols.indices()
    if lower:
        A.local[rows < cols] = 0
        A.local[rows == cols] = 1
    else:
        A.local[rows > cols] = 0
    return A


def _determinant(ctx: TaskContext, A: DistMatrix) -> tuple[Any, npt.NDArray[np.float64], int]:
    """Return the factors of the determinant: a phase of magnitude 1, magnitudes, an exponent of two. Collective."""
    checks.require_floating(ctx, A=A)
    require_square(ctx, A=A)
    checks.require_finite(ctx, A=A)
    work = grid_copy(A)
    piv = elimination.eliminate(ctx, work)
    pivots = elimination.diagonal(work).astype(np.complex128 if A.dtype.kind == "c" else np.float64)
    exponent = _normalise(pivots)
    magnitudes = np.abs(pivots)
    phases = np.divide(pivots, magnitudes, out=np.ones_like(pivots), where=magnitudes != 0)
    phase = phases.prod() * (-1) ** int(np.count_nonzero(piv != np.arange(piv.size)))
    if A.dtype.kind == "c":
        phase /= abs(phase)
    return phase.item(), magnitudes, exponent


def _normalise(pivots: Array) -> int:
    """Scale pivots near the limits of the range of doubles to about 1, in place; return the removed exponent. Local.

    The magnitude of a complex number can overflow even if its parts do not, and a quotient by a subnormal number has
    few digits, or is NaN.
    """
    exponents = np.frexp(np.maximum(np.abs(pivots.real), np.abs(pivots.imag)))[1]
    exponents = np.where(np.abs(exponents) > _EXTREME, exponents, 0)
    shift_exponents(pivots, -exponents)
    return int(exponents.sum(dtype=np.int64))


def _times(phase: complex, magnitude: float) -> complex:
    """Return the product; a zero part stays zero, even if the magnitude is infinite."""
    return complex(*(part * magnitude if part else 0.0 for part in (phase.real, phase.imag)))
