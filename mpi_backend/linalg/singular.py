"""Which method finds the leading singular triplets of which matrix."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError, ConvergenceError
from alchemist_ray.mpi_backend import scalapack
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.linalg import checks
from alchemist_ray.mpi_backend.linalg.gram import gram_svd
from alchemist_ray.mpi_backend.linalg.grid_matrices import grid_copy, leading_columns, leading_rows
from alchemist_ray.mpi_backend.linalg.lanczos import Plan, Progress, block_size, lanczos_svd, trustworthy
from alchemist_ray.mpi_backend.linalg.slabs import Slab, TallMatrix, slab_of, sparse_slab_of
from alchemist_ray.mpi_backend.linalg.triplets import Triplets
from alchemist_ray.mpi_backend.linalg.tsqr import TSQR

Array = npt.NDArray[Any]
Tall = TypeVar("Tall", bound=TallMatrix)

_SMALL = 2000
"""The largest short side whose n x n problems one rank solves: 0.2 s for an n of 1,000, some 2 s here."""

_LARGEST_TRIANGLE = 6000
"""The largest short side for which one rank takes the SVD of R: p?gesvd on two ranks is four times slower."""

_CHEAP = 2e9
"""Operations (m n^2) below which the most accurate method is taken without asking for a faster one."""


def leading_triplets(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    k: int,
    tol: float | None,
    seed: int,
    max_iterations: int,
) -> tuple[DistMatrix, Array, DistMatrix]:
    """Return U, S, Vt; see the task :func:`~alchemist_ray.mpi_backend.linalg.truncated_svd`. Collective over comm."""
    checks.require_floating(ctx, A=A)
    checks.require_rank(ctx, "k", k, A.shape)
    tolerance = _tolerance(ctx, tol, A.dtype)
    checks.require_finite(ctx, A=A)
    vectors = max_iterations * block_size(k)
    if isinstance(A, SparseDistMatrix):
        found = _sparse(ctx, A, k, tolerance, seed, vectors)
        if found is not None:
            return found
        A = A.to_dense("VC_STAR" if A.shape[0] >= A.shape[1] else "STAR_VC")
    slab, factor = _safe(slab_of(A))
    triplets = _iterative(ctx, slab, k, tolerance, seed, vectors)
    if triplets is not None or min(A.shape) <= _LARGEST_TRIANGLE:
        return _results(ctx, slab, triplets or _direct(ctx, slab, k), factor)
    return _full(ctx, A, k, factor)


def _sparse(
    ctx: TaskContext, A: SparseDistMatrix, k: int, tolerance: float, seed: int, vectors: int
) -> tuple[DistMatrix, Array, DistMatrix] | None:
    """Return the triplets of a sparse matrix, or None if it is small enough, or k too large, not to treat it as one.

    Raises
    ------
    ConvergenceError
        If the iteration does not converge, and the matrix is too large for another method.
    """
    n = min(A.shape)
    narrow, wide = Plan.narrow(k, n), Plan.wide(k, n)
    if narrow is None:
        return None
    slab, factor = _safe(sparse_slab_of(A))
    progress = _progress(ctx, tolerance)
    triplets = lanczos_svd(slab, narrow, tolerance, seed, vectors, progress)
    if triplets is not None and not trustworthy(triplets.s, narrow.block, tolerance):
        if wide is None:
            return None
        triplets = lanczos_svd(slab, wide, tolerance, seed, vectors, progress)
    if triplets is not None:
        return _results(ctx, slab, triplets, factor)
    if n <= _LARGEST_TRIANGLE:
        return None
    raise ConvergenceError(
        ctx.task,
        f"the {k} leading singular triplets of a sparse {A.shape[0]}x{A.shape[1]} matrix did not converge to "
        f"{tolerance:g} with {vectors} vectors: raise tol or max_iterations, or ask for another k",
    )


def _tolerance(ctx: TaskContext, tol: float | None, dtype: np.dtype[Any]) -> float:
    """Return the relative residual to reach: `tol`, but not less than the precision allows."""
    if tol is not None and not tol >= 0:
        raise ArgumentValueError(ctx.task, f"tol must be a number that is not negative, or None, but is {tol}")
    return max(tol or 0.0, 100 * float(np.finfo(dtype).eps))


def _safe(slab: Tall) -> tuple[Tall, float]:
    """Return the slab scaled so that its squares neither overflow nor vanish, and the factor. Collective over comm."""
    factor = _scale(slab)
    return (slab if factor == 1 else slab.scaled(factor)), factor


def _scale(slab: TallMatrix) -> float:
    """Return the power of two that brings the largest element near 1; 1 if squares are safe without. Collective."""
    elements, precision = slab.elements, np.finfo(slab.dtype)
    squares = slab.comm.allreduce(float(np.vdot(elements, elements)))
    if 2.0 ** (precision.minexp // 2) < squares < 2.0 ** (precision.maxexp // 2):
        return 1.0
    largest = slab.comm.allreduce(float(np.abs(elements).max()) if elements.size else 0.0, MPI.MAX)
    exponent = math.frexp(largest)[1]
    return math.ldexp(1.0, min(-exponent, int(precision.maxexp) - 2))


def _iterative(ctx: TaskContext, slab: Slab, k: int, tolerance: float, seed: int, vectors: int) -> Triplets | None:
    """Return the triplets by the fast method for the shape, or None if there is none or it is not accurate enough."""
    m, n = slab.shape
    if m * n * n <= _CHEAP or 4 * k > n:
        return None
    if n <= _SMALL:
        ctx.progress(0, 1, "Gram matrix")
        return gram_svd(slab, k, tolerance)
    plan = Plan.wide(k, n)
    return lanczos_svd(slab, plan, tolerance, seed, vectors, _progress(ctx, tolerance)) if plan is not None else None


def _progress(ctx: TaskContext, tolerance: float) -> Progress:
    """Return what tells the caller how far the iteration is: by the digits that it has."""

    def progress(count: int, residual: float) -> None:
        done = math.log(max(residual, tolerance)) / math.log(tolerance)
        ctx.progress(max(0.0, done), 1, f"Lanczos, {count} vectors, residual {residual:.1e}")

    return progress


def _direct(ctx: TaskContext, slab: Slab, k: int) -> Triplets:
    """Return the triplets from the SVD of R in A = Q R. Collective over comm."""
    ctx.progress(0, 1, "QR factorisation")
    factors = TSQR(slab.comm, slab.local)
    ctx.progress(0.5, 1, "SVD of the triangle")
    P, s, Qt = slab.comm.bcast(_truncated(factors.R, k) if slab.comm.rank == 0 else None)
    return Triplets(factors.apply(P), s, Qt.T)


def _truncated(R: Array, k: int) -> tuple[Array, Array, Array]:
    P, s, Qt = np.linalg.svd(R, full_matrices=False)
    return P[:, :k].copy(), s[:k].copy(), Qt[:k].copy()


def _results(
    ctx: TaskContext, slab: TallMatrix, triplets: Triplets, factor: float = 1.0
) -> tuple[DistMatrix, Array, DistMatrix]:
    """Return U, S, Vt of the matrix of which `slab` is a tall view, `factor` times as large. Local."""
    ctx.progress(1, 1, "done")
    s = triplets.s / triplets.s.dtype.type(factor)
    tall, small = slab.tall_result(ctx, triplets.U), slab.small_result(ctx, triplets.V)
    return (small, s, tall) if slab.flipped else (tall, s, small)


def _full(ctx: TaskContext, A: DistMatrix, k: int, factor: float) -> tuple[DistMatrix, Array, DistMatrix]:
    """Return the triplets from the whole SVD by ScaLAPACK, p?gesvd. Collective over comm."""
    ctx.progress(0, 1, "full SVD (p?gesvd)")
    work = grid_copy(A)
    work.local[...] *= work.dtype.type(factor)
    U, S, Vt, info = scalapack.gesvd(work)
    # info = min(m, n) + 1 says that the ranks' arithmetic differs in the last bits, which is harmless
    if 0 < info <= min(A.shape):
        raise ConvergenceError(ctx.task, f"{info} superdiagonals of p?gesvd did not converge to zero")
    ctx.progress(1, 1, "done")
    return leading_columns(U, k), S[:k] / S.dtype.type(factor), leading_rows(Vt, k)
