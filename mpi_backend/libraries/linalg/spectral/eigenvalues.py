"""Eigenvalues and eigenvectors of general matrices.

One rank (see :mod:`..one_rank`) calls LAPACK's ?geev through NumPy. All ranks together call ScaLAPACK's p?gehrd for the
reduction to Hessenberg form, and then one rank does the QR iterations with LAPACK's ?hseqr. We do not use p?hseqr:
MKL's returned wrong eigenvalues for random 900 x 900 matrices, with info = 0, and it has no complex version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, one_rank, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import grid_copy
from alchemist_ray.mpi_backend.libraries.linalg.scaling import safe_factor, scale_safely
from alchemist_ray.mpi_backend.libraries.linalg.shapes import require_square
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.scalapack import spectral

Array = npt.NDArray[Any]


@task
def eigvals(ctx: TaskContext, A: DistMatrix) -> npt.NDArray[Any]:
    """Return the eigenvalues of a general matrix.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix; float32, float64, complex64 or complex128.

    Returns
    -------
    w : ndarray, shape (n,)
        Complex eigenvalues in no particular order; those of a real matrix come in conjugate pairs.

    Raises
    ------
    ArgumentError
        If A has another dtype.
    ArgumentValueError
        If A is not square.
    NonFiniteError
        If A contains NaN or Inf.
    ConvergenceError
        If an eigenvalue does not converge.

    Notes
    -----
    Collective over comm. If all ranks share a host and eight copies of A fit in half its memory, or if n is at most
    1,000: LAPACK's ?geev on rank 0, with the threads of all ranks. Otherwise p?gehrd (10/3 n^3 operations) and ?hseqr
    on rank 0 (about 10 n^3), which holds a copy of A. The eigenvalues are exact for a matrix A + E with ‖E‖ of the
    order n eps ‖A‖.
    """
    _check(ctx, A)
    if small_problems.suits("eigvals", A.shape):
        values: Array = small_problems.solved(ctx, _scaled_values, A=A)
        return values
    checks.require_finite(ctx, A=A)
    return values_on_one_rank(ctx, A) if one_rank.preferred(ctx, A.shape, A.dtype) else values_on_all_ranks(ctx, A)


@task
def eig(ctx: TaskContext, A: DistMatrix) -> tuple[npt.NDArray[Any], DistMatrix]:
    """Return eigenvalues and right eigenvectors of a general matrix, A V = V diag(w).

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix, n at most 20,000; float32, float64, complex64 or complex128.

    Returns
    -------
    w : ndarray, shape (n,)
        Complex eigenvalues in no particular order.
    V : DistMatrix, shape (n, n)
        Complex eigenvectors, each of norm 1, in MC_MR. If A is close to a matrix that cannot be diagonalised, they are
        almost linearly dependent.

    Raises
    ------
    ArgumentError, NonFiniteError, ConvergenceError
        As in :func:`eigvals`.
    ArgumentValueError
        If A is not square, or is too large.

    Notes
    -----
    Collective over comm. LAPACK's ?geev on rank 0, with the threads of all ranks on its host: about 25 n^3 operations,
    and memory for five copies of A there. ScaLAPACK has no routine that uses all ranks.
    """
    _check(ctx, A)
    n = A.shape[0]
    if n > one_rank.LARGEST:
        raise ArgumentValueError(ctx.task, f"A is {n}x{n}, but eig computes eigenvectors up to n = {one_rank.LARGEST}")
    dtype = np.result_type(A.dtype, np.complex64)
    if small_problems.suits("eig", A.shape):

        def work(A: Array) -> tuple[Array, Whole]:
            w, V = _complex_pairs(A, dtype)
            return w, Whole(V)

        found: tuple[Array, DistMatrix] = small_problems.solved(ctx, work, A=A)
        return found
    checks.require_finite(ctx, A=A)
    ctx.progress(0, 1, "eigenvectors (LAPACK)")
    w, V = one_rank.run_on(ctx, A, 25 * n**3, lambda whole: _complex_pairs(whole, dtype)) or (None, None)
    return ctx.comm.bcast(w, one_rank.ROOT), one_rank.dealt(ctx, V, A.shape, dtype)


def _check(ctx: TaskContext, A: DistMatrix) -> None:
    checks.require_floating(ctx, A=A)
    require_square(ctx, A=A)


def _complex_pairs(A: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return eigenvalues and eigenvectors of `A`, which is overwritten. Local."""
    factor = _scale(A)
    w, V = np.linalg.eig(A)
    return _divided(w.astype(dtype, copy=False), factor), V.astype(dtype, copy=False)


def _scaled_values(A: Array) -> Array:
    """Return the eigenvalues of `A`, which is overwritten. Local."""
    factor = _scale(A)
    return _divided(np.linalg.eigvals(A).astype(np.result_type(A.dtype, np.complex64), copy=False), factor)


def _scale(A: Array) -> float:
    """Multiply `A` by a power of two, and return it: for subnormal elements LAPACK's ?geev returns NaN. Local."""
    factor = safe_factor(MPI.COMM_SELF, A)
    if factor != 1:
        A *= A.real.dtype.type(factor)
    return factor


def values_on_one_rank(ctx: TaskContext, A: DistMatrix) -> Array:
    """Return the eigenvalues by LAPACK on one rank. Collective over comm."""
    ctx.progress(0, 1, "eigenvalues (LAPACK)")
    count = 10 * A.shape[0] ** 3
    return _complex(ctx, one_rank.run_on(ctx, A, count, lambda whole: _scaled_values(whole.T)), A.dtype)


def values_on_all_ranks(ctx: TaskContext, A: DistMatrix) -> Array:
    """Return the eigenvalues by ScaLAPACK's reduction to Hessenberg form. Collective over comm."""
    ctx.progress(0, 1, "Hessenberg form (ScaLAPACK)")
    work = grid_copy(A)
    factor = scale_safely(work)
    spectral.gehrd(work)
    work.local[work.cols.indices() > work.rows.indices()[:, np.newaxis] + 1] = 0  # reflectors
    ctx.progress(0.5, 1, "QR iterations (LAPACK)")
    count = 10 * A.shape[0] ** 3
    w = one_rank.run_on(ctx, work, count, lambda whole: _divided(spectral.hseqr(whole), factor))
    return _complex(ctx, w, A.dtype)


def _divided(w: Array, factor: float) -> Array:
    """Return complex `w`, divided in place by a power of two, whose reciprocal may overflow. Local."""
    if factor != 1:
        parts = w.view(w.real.dtype)
        with np.errstate(over="ignore"):
            parts /= parts.dtype.type(factor)
    return w


def _complex(ctx: TaskContext, w: Array | None, dtype: np.dtype[Any]) -> Array:
    """Return the root's eigenvalues as complex numbers on every rank. Collective over comm."""
    values: Array = ctx.comm.bcast(w, one_rank.ROOT)
    return values.astype(np.result_type(dtype, np.complex64), copy=False)
