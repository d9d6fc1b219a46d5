"""QR factorisation of distributed matrices."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.householder import Householder, row_layout
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import leading_rows
from alchemist_ray.mpi_backend.libraries.linalg.scaling import linearly_scaled, scale_linearly, shift_exponents
from alchemist_ray.mpi_backend.libraries.linalg.slabs import slab_of
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

Array = npt.NDArray[Any]

_NARROW = 32
"""Number of columns up to which the tree is used even if ranks have fewer rows than columns."""

_WIDEST_TREE = 2000
"""Largest number of columns for which one rank can factor the triangles at each node of the tree."""


@task
def qr(
    ctx: TaskContext, A: DistMatrix, mode: Literal["economic", "r"] = "economic", pivoting: bool = False
) -> tuple[Any, ...]:
    """Return the QR factorisation A = Q R, or with pivoting A[:, p] = Q R.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix.
    mode : {"economic", "r"}
        Whether to return Q and R, or only R.
    pivoting : bool
        Whether to exchange columns so that R reveals the rank.

    Returns
    -------
    Q : DistMatrix, shape (m, k)
        Orthonormal columns, ``k = min(m, n)``; distributed by rows. Omitted with mode "r".
    R : DistMatrix, shape (k, n)
        Upper triangular, exactly zero below the diagonal; in MC_MR. Diagonal entries may be negative or complex.
        With mode "r" and without pivoting the result is a tuple with R alone, as in SciPy.
    p : ndarray of int64, shape (n,)
        Only with `pivoting`: for each column of Q R its column number in A.

    Raises
    ------
    ArgumentError
        If A is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If `mode` is not valid.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    Without pivoting, if n is at most 32, or n is at most 2,000 and each rank can have n rows: TSQR, 4mn^2 operations,
    one n x n triangle on each rank and two copies of its rows (Demmel et al., SIAM J. Sci. Comput. 34 (2012), A206).

    Otherwise Householder reflectors with panels by TSQR: 2 n^2 (m - n/3) operations, and as many for Q; one copy of A.
    Pivoting by random sketches takes about 1.2 times that. The magnitudes on the diagonal of R are of the size of
    LAPACK's, but may rise by a small factor (very rarely 2) from one panel of 64 columns to the next. See
    :mod:`.householder`.
    """
    checks.require_floating(ctx, A=A)
    if mode not in ("economic", "r"):
        raise ArgumentValueError(ctx.task, f"mode must be 'economic' or 'r', but is {mode!r}")
    if small_problems.suits("qr", A.shape):
        return tuple(small_problems.solved(ctx, lambda A: _of_whole(A, mode, pivoting), A=A))
    checks.require_finite(ctx, A=A)
    A, exponent = linearly_scaled(A)
    m, n = A.shape
    if not pivoting and m >= n and 0 < n <= max(_NARROW, min(m // ctx.comm.size, _WIDEST_TREE)):
        return _by_tree(ctx, A, mode, exponent)
    factors = reflectors(ctx, A, pivoting)
    R = triangle(factors).relayout("MC_MR")
    if exponent:
        shift_exponents(R.local, -exponent)
    if mode == "r":
        return (R, factors.jpvt) if pivoting else (R,)
    Q = orthonormal(factors)
    return (Q, R, factors.jpvt) if pivoting else (Q, R)


def reflectors(ctx: TaskContext, A: DistMatrix, pivoting: bool) -> Householder:
    """Return the Householder factorisation of `A`; `A` is not changed. Collective over comm."""
    work = A.relayout(row_layout(A.shape, ctx.comm.size))
    if work is A:
        with Agreement(ctx.comm):
            work = A.new(A.shape, A.layout)
        work.local[...] = A.local
    return Householder.of(ctx, work, pivoting)


def triangle(factors: Householder) -> DistMatrix:
    """Return R, distributed by rows. Collective over comm."""
    R = leading_rows(factors.work, min(factors.work.shape))
    R.local[R.rows.indices()[:, np.newaxis] > R.cols.indices()] = 0
    return R


def orthonormal(factors: Householder) -> DistMatrix:
    """Return Q, distributed by rows. Collective over comm."""
    work, k = factors.work, min(factors.work.shape)
    with Agreement(work.comm):
        Q = work.new((work.shape[0], k), row_layout((work.shape[0], k), work.comm.size))
    factors.overwrite_with_q(Q)
    return Q


def _of_whole(A: Array, mode: str, pivoting: bool) -> tuple[Any, ...]:
    """Return the results of :func:`qr` for a whole matrix. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    exponent, k = scale_linearly(MPI.COMM_SELF, A), min(A.shape)
    found = scipy.linalg.qr(A, mode=mode, pivoting=pivoting, overwrite_a=True, check_finite=False)
    factors, p = (found[:-1], (found[-1].astype(np.int64),)) if pivoting else (found, ())
    R = factors[-1][:k]
    if exponent:
        shift_exponents(R, -exponent)
    return (*(Whole(Q, "VC_STAR") for Q in factors[:-1]), Whole(R), *p)


def _by_tree(ctx: TaskContext, A: DistMatrix, mode: str, exponent: int) -> tuple[DistMatrix, ...]:
    """Return the factors of a matrix that was first multiplied by 2**exponent. Collective over comm."""
    slab = slab_of(A)
    factors = TSQR.of(ctx, slab.local, slab.shape[0])
    R = checks.replicated(ctx, factors.R, "MC_MR")
    if exponent:
        shift_exponents(R.local, -exponent)
    return (R,) if mode == "r" else (slab.tall_result(ctx, factors.q()), R)
