"""LU factorisation of distributed matrices, solving with its factors, and determinants."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems
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
from alchemist_ray.mpi_backend.libraries.linalg.scaling import scale_linearly, shift_exponents, triangle_exponent
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.libraries.linalg.whole_factorizations import WholeLU, shift_upper
from alchemist_ray.mpi_backend.libraries.linalg.whole_factorizations import require_regular as require_regular_whole

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
    if small_problems.suits("lu", A.shape):
        return tuple(small_problems.solved(ctx, lambda A: _lu_of_whole(A, permute_l, p_indices), A=A))
    checks.require_finite(ctx, A=A)
    work, piv = _eliminated(ctx, A)
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
    if small_problems.suits("lu", A.shape):

        def work(A: Array) -> tuple[Whole, npt.NDArray[np.int64]]:
            factors = WholeLU.of(A)
            shift_upper(factors.factors, -factors.exponent)
            return Whole(factors.factors), factors.piv

        found: tuple[DistMatrix, npt.NDArray[np.int64]] = small_problems.solved(ctx, work, A=A)
        return found
    checks.require_finite(ctx, A=A)
    return _eliminated(ctx, A)


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
        If b or lu contains NaN or Inf.
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
    piv = rows.astype(np.int64)
    if small_problems.suits("lu_solve", lu.shape, b.shape):
        layout = b.layout

        def work(b: Array, lu: Array) -> Whole:
            lu, b = np.asarray(lu, dtype, "F"), np.asarray(b, dtype, "F")
            require_regular_whole(ctx.task, lu)
            exponent = scale_linearly(MPI.COMM_SELF, np.triu(lu))
            shift_upper(lu, exponent)
            return Whole(WholeLU(lu, piv, exponent).solve(b, _FORMS[trans]), layout)

        return cast("DistMatrix", small_problems.solved(ctx, work, b=b, lu=lu))
    checks.require_finite(ctx, b=b, lu=lu)
    factors = on_grid(checks.converted(lu, dtype))
    exponent = triangle_exponent(factors, False, require_regular(ctx, factors))
    if exponent:
        factors = grid_copy(factors)
        _shift_upper(factors, exponent)
    return LU(factors, piv, exponent).solve(ctx, b, _FORMS[trans])


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


def _eliminated(ctx: TaskContext, A: DistMatrix) -> tuple[DistMatrix, npt.NDArray[np.int64]]:
    """Return the factors of `A` as LAPACK stores them, and the pivots. Collective over comm."""
    work = grid_copy(A)
    exponent = scale_linearly(ctx.comm, work.local)
    piv = elimination.eliminate(ctx, work)
    if exponent:
        _shift_upper(work, -exponent)
    return work, piv


def _shift_upper(A: DistMatrix, exponent: int) -> None:
    """Multiply the upper triangle in place by 2**exponent. Local."""
    for iloc, i in enumerate(A.rows.indices().tolist()):
        shift_exponents(A.local[iloc, A.cols.local_range(0, min(i, A.shape[1]))[1] :], exponent)


def _lu_of_whole(A: Array, permute_l: bool, p_indices: bool) -> tuple[Any, ...]:
    """Return the results of :func:`lu` for a whole matrix. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    exponent = scale_linearly(MPI.COMM_SELF, A)
    if permute_l:
        L, U = scipy.linalg.lu(A, permute_l=True, overwrite_a=True, check_finite=False)
        p = None
    else:
        p, L, U = scipy.linalg.lu(A, p_indices=True, overwrite_a=True, check_finite=False)
    if exponent:
        shift_exponents(U, -exponent)
    if p is None:
        return Whole(L), Whole(U)
    p = p.astype(np.int64)
    return (p if p_indices else Whole(np.equal.outer(p, np.arange(p.size)).astype(L.dtype)), Whole(L), Whole(U))


def _determinant(ctx: TaskContext, A: DistMatrix) -> tuple[Any, npt.NDArray[np.float64], int]:
    """Return the factors of the determinant: a phase of magnitude 1, magnitudes, an exponent of two. Collective."""
    checks.require_floating(ctx, A=A)
    require_square(ctx, A=A)
    if small_problems.suits("det", A.shape):
        found: tuple[Any, npt.NDArray[np.float64], int] = small_problems.solved(ctx, _whole_determinant, A=A)
        return found
    checks.require_finite(ctx, A=A)
    work = grid_copy(A)
    exponent = scale_linearly(ctx.comm, work.local)
    piv = elimination.eliminate(ctx, work)
    return _of_pivots(elimination.diagonal(work), piv, exponent)


def _whole_determinant(A: Array) -> tuple[Any, npt.NDArray[np.float64], int]:
    factors = WholeLU.of(A)
    return _of_pivots(np.diagonal(factors.factors), factors.piv, factors.exponent)


def _of_pivots(diagonal: Array, piv: npt.NDArray[np.int64], scaled_by: int) -> tuple[Any, npt.NDArray[np.float64], int]:
    """Return the factors of the determinant of a matrix that was first multiplied by 2**scaled_by. Local."""
    pivots = diagonal.astype(np.complex128 if diagonal.dtype.kind == "c" else np.float64)
    exponent = _normalise(pivots) - scaled_by * pivots.size
    magnitudes = np.abs(pivots)
    phases = np.divide(pivots, magnitudes, out=np.ones_like(pivots), where=magnitudes != 0)
    phase = phases.prod() * (-1) ** int(np.count_nonzero(piv != np.arange(piv.size)))
    if diagonal.dtype.kind == "c":
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
