"""The task truncated_svd, and the choice of its method by the shape of the matrix."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentError, ArgumentValueError, ConvergenceError
from alchemist_ray.mpi_backend import scalapack
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import grid_copy, leading_columns, leading_rows
from alchemist_ray.mpi_backend.libraries.linalg.scaling import safe_factor
from alchemist_ray.mpi_backend.libraries.linalg.slabs import RowSlab, TallMatrix, slab_of, sparse_slab_of
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.libraries.linalg.spectral import full_svd
from alchemist_ray.mpi_backend.libraries.linalg.spectral.full_svd import LARGEST_TRIANGLE
from alchemist_ray.mpi_backend.libraries.linalg.spectral.gram import gram_svd
from alchemist_ray.mpi_backend.libraries.linalg.spectral.lanczos import (
    LanczosPlan,
    ReportIteration,
    block_size,
    lanczos_svd,
    trustworthy,
)
from alchemist_ray.mpi_backend.libraries.linalg.spectral.randomized import randomized_svd
from alchemist_ray.mpi_backend.libraries.linalg.spectral.triplets import Triplets

Array = npt.NDArray[Any]
Tall = TypeVar("Tall", bound=TallMatrix)

_SMALL = 2000
"""The largest short side n for which one rank solves n x n problems: 0.2 s for n = 1,000, about 2 s for this n."""

_CHEAP = 2e9
"""Number of operations (m n^2) below which the most accurate method is used, even if another one is faster."""

_METHODS = ("auto", "krylov", "gram", "tsqr", "randomized")


@task
def truncated_svd(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    k: int,
    tol: float | None = 1e-10,
    seed: int = 0,
    max_iterations: int = 300,
    method: Literal["auto", "krylov", "gram", "tsqr", "randomized"] = "auto",
    oversampling: int = 10,
    power_iterations: int = 2,
) -> tuple[DistMatrix, npt.NDArray[Any], DistMatrix]:
    """Return the leading k singular triplets, A ~ U diag(S) Vt.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, n)
        The matrix, tall, wide or square.
    k : int
        Number of triplets, ``1 <= k <= min(m, n)``.
    tol : float or None
        Bound for the residuals ‖A v - sigma u‖ and ‖A^H u - sigma v‖, relative to the largest singular value. None and
        values below 100 times the machine precision of the dtype mean 100 times the machine precision.
    seed : int
        Seed of the random start of the iteration for large matrices. The same seed on the same number of workers gives
        the same result.
    max_iterations : int
        Number of blocks of about k + 8 vectors that the iteration may add before the full SVD is computed instead.
    method : {"auto", "krylov", "gram", "tsqr", "randomized"}
        The method, see below. All except "randomized" are accurate to `tol` or raise an error. "gram" and "tsqr" are
        for dense matrices.
    oversampling, power_iterations : int
        For "randomized": columns of the random block beyond k, and rounds of products with A and A^H beyond the first.

    Returns
    -------
    U : DistMatrix, shape (m, k)
        Left singular vectors, orthonormal even if singular values are zero.
    S : ndarray, shape (k,)
        Singular values, descending.
    Vt : DistMatrix, shape (k, n)
        Right singular vectors, conjugated and transposed; orthonormal.

    Raises
    ------
    ArgumentError
        If A is not float32, float64, complex64 or complex128, or is sparse and the method is for dense matrices only.
    ArgumentValueError
        If k is out of range, tol, oversampling or power_iterations is negative, or the method is unknown.
    NonFiniteError
        If A contains NaN or Inf.
    ConvergenceError
        If the full SVD does not converge; if the iteration does not converge for a sparse matrix whose smaller side is
        over 6,000; if a method chosen by name does not reach `tol`, or k is too large for it.

    Notes
    -----
    Collective over comm. Let n be the smaller side; a wide matrix is handled as its transpose. With "auto" the first
    method that applies is used:

    - m n^2 more than 2e9, k <= n/4, n <= 2,000 ("gram"): eigenvectors of A^H A and a Rayleigh-Ritz
      step, mn^2 + O(n^3), unless the range of the spectrum is too wide for it (see :mod:`.gram`);
    - m n^2 more than 2e9, k up to about n/9 ("krylov"): thick-restart block Lanczos
      bidiagonalisation (see :mod:`.lanczos`), about 4mn(k + 8) operations per block, unless it does not converge;
    - n <= 6,000 ("tsqr"): TSQR and the SVD of R on one rank, 4mn^2 + O(n^3), with R on every rank;
    - p?gesvd of the whole matrix.

    For a sparse matrix of any size the iteration is used, with blocks of 2 vectors unless singular values have more
    copies. The matrix is made dense only if its smaller side is too short for the bases (below about 3k or 2k + 18), or
    if the iteration does not converge.

    "randomized" is for results that need not be accurate: it takes 2 (power_iterations + 1) + 1 passes over A with
    blocks of k + oversampling vectors and ignores `tol`. Its error depends on how fast the singular values decay (see
    :mod:`.randomized`; Halko, Martinsson, Tropp, SIAM Review 53 (2011), 217).

    Memory: one copy of A if it is not distributed along its longer side; for TSQR and p?gesvd one or two more.
    """
    _check_method(ctx, A, method, oversampling, power_iterations)
    if method == "auto":
        return leading_triplets(ctx, A, k, tol, seed, max_iterations)
    tolerance = _checked(ctx, A, k, tol)
    vectors = max_iterations * block_size(k)
    slab, factor = _safe(sparse_slab_of(A) if isinstance(A, SparseDistMatrix) else slab_of(A))
    if method == "randomized":
        found: Triplets | None = randomized_svd(slab, k, oversampling, power_iterations + 1, seed)
    else:
        found = _by_name(ctx, slab, method, k, tolerance, seed, vectors)
    if found is None:
        raise ConvergenceError(
            ctx.task,
            f"method {method!r} does not find {k} singular triplets of a {A.shape[0]}x{A.shape[1]} matrix to "
            f"{tolerance:g}: use method='auto', another k, or a larger tol",
        )
    return _results(ctx, slab, found, factor)


def _checked(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, k: int, tol: float | None) -> float:
    """Check the arguments that all methods share; return the relative residual to reach. Collective over comm."""
    tolerance = _check_arguments(ctx, A, k, tol)
    checks.require_finite(ctx, A=A)
    return tolerance


def _check_arguments(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, k: int, tol: float | None) -> float:
    """Check the arguments except the elements; return the relative residual to reach. Local."""
    checks.require_floating(ctx, A=A)
    checks.require_rank(ctx, "k", k, A.shape)
    return _tolerance(ctx, tol, A.dtype)


def _of_whole(A: Array, k: int) -> tuple[Whole, Array, Whole]:
    """Return the leading `k` triplets of a whole matrix. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    U, s, Vt = scipy.linalg.svd(A, full_matrices=False, overwrite_a=True, check_finite=False)
    return Whole(U[:, :k], "VC_STAR"), s[:k].copy(), Whole(Vt[:k], "STAR_VC")


def _check_method(
    ctx: TaskContext, A: DistMatrix | SparseDistMatrix, method: str, oversampling: int, power_iterations: int
) -> None:
    """Check the method and its arguments. Local."""
    if method not in _METHODS:
        raise ArgumentValueError(ctx.task, f"method must be one of {', '.join(_METHODS)}, but is {method!r}")
    if method in ("gram", "tsqr") and isinstance(A, SparseDistMatrix):
        raise ArgumentError(ctx.task, f"method {method!r} is for dense matrices: use 'krylov' or 'randomized'")
    for name, count in (("oversampling", oversampling), ("power_iterations", power_iterations)):
        if count < 0:
            raise ArgumentValueError(ctx.task, f"{name} must not be negative, but is {count}")


def _by_name(
    ctx: TaskContext, slab: TallMatrix, method: str, k: int, tolerance: float, seed: int, vectors: int
) -> Triplets | None:
    """Return the triplets by the named method, or None if it does not reach the tolerance. Collective."""
    n = slab.shape[1]
    if isinstance(slab, RowSlab) and method == "gram":
        return gram_svd(ctx, slab, k, tolerance)
    if isinstance(slab, RowSlab) and method == "tsqr":
        return full_svd.slab_triplets(ctx, slab, k)
    plan = LanczosPlan.wide(k, n) or LanczosPlan.narrow(k, n)
    return lanczos_svd(slab, plan, tolerance, seed, vectors, _progress(ctx, tolerance)) if plan else None


def leading_triplets(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    k: int,
    tol: float | None,
    seed: int,
    max_iterations: int,
) -> tuple[DistMatrix, Array, DistMatrix]:
    """Return U, S, Vt by the method that fits the shape; see the task :func:`truncated_svd`. Collective over comm."""
    if isinstance(A, DistMatrix) and small_problems.suits("truncated_svd", A.shape):
        _check_arguments(ctx, A, k, tol)
        few: tuple[DistMatrix, Array, DistMatrix] = small_problems.solved(ctx, lambda A: _of_whole(A, k), A=A)
        return few
    tolerance = _checked(ctx, A, k, tol)
    vectors = max_iterations * block_size(k)
    if isinstance(A, SparseDistMatrix):
        found = _sparse(ctx, A, k, tolerance, seed, vectors)
        if found is not None:
            return found
        A = A.to_dense("VC_STAR" if A.shape[0] >= A.shape[1] else "STAR_VC")
    slab, factor = _safe(slab_of(A))
    triplets = _iterative(ctx, slab, k, tolerance, seed, vectors)
    if triplets is not None or min(A.shape) <= LARGEST_TRIANGLE:
        return _results(ctx, slab, triplets or full_svd.slab_triplets(ctx, slab, k), factor)
    return _full(ctx, A, k, factor)


def _sparse(
    ctx: TaskContext, A: SparseDistMatrix, k: int, tolerance: float, seed: int, vectors: int
) -> tuple[DistMatrix, Array, DistMatrix] | None:
    """Return the triplets of a sparse matrix, or None if it must be made dense: it is too small, or k too large.

    Raises
    ------
    ConvergenceError
        If the iteration does not converge, and the matrix is too large for another method.
    """
    n = min(A.shape)
    narrow, wide = LanczosPlan.narrow(k, n), LanczosPlan.wide(k, n)
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
    if n <= LARGEST_TRIANGLE:
        return None
    raise ConvergenceError(
        ctx.task,
        f"the {k} leading singular triplets of a sparse {A.shape[0]}x{A.shape[1]} matrix did not converge to "
        f"{tolerance:g} with {vectors} vectors: increase tol or max_iterations, or use another k",
    )


def _tolerance(ctx: TaskContext, tol: float | None, dtype: np.dtype[Any]) -> float:
    """Return the relative residual to reach: `tol`, but not less than the precision allows."""
    if tol is not None and not tol >= 0:
        raise ArgumentValueError(ctx.task, f"tol must be None or a number that is not negative, but is {tol}")
    return max(tol or 0.0, 100 * float(np.finfo(dtype).eps))


def _safe(slab: Tall) -> tuple[Tall, float]:
    """Return the slab scaled so that its squares neither overflow nor underflow, and the factor. Collective."""
    factor = safe_factor(slab.comm, slab.elements)
    return (slab if factor == 1 else slab.scaled(factor)), factor


def _iterative(ctx: TaskContext, slab: RowSlab, k: int, tolerance: float, seed: int, vectors: int) -> Triplets | None:
    """Return the triplets by the fast method for the shape; None if there is none, or it is not accurate enough."""
    m, n = slab.shape
    if m * n * n <= _CHEAP or 4 * k > n:
        return None
    if n <= _SMALL:
        ctx.progress(0, 1, "Gram matrix")
        return gram_svd(ctx, slab, k, tolerance)
    plan = LanczosPlan.wide(k, n)
    return lanczos_svd(slab, plan, tolerance, seed, vectors, _progress(ctx, tolerance)) if plan is not None else None


def _progress(ctx: TaskContext, tolerance: float) -> ReportIteration:
    """Return a function that reports the progress of the iteration, measured by its correct digits."""

    def progress(count: int, residual: float) -> None:
        done = math.log(max(residual, tolerance)) / math.log(tolerance)
        ctx.check_cancelled()
        ctx.progress(max(0.0, done), 1, f"Lanczos, {count} vectors, residual {residual:.1e}")

    return progress


def _results(
    ctx: TaskContext, slab: TallMatrix, triplets: Triplets, factor: float = 1.0
) -> tuple[DistMatrix, Array, DistMatrix]:
    """Return U, S, Vt of the matrix whose tall view, times `factor`, is `slab`. Collective over comm."""
    ctx.progress(1, 1, "done")
    s = triplets.s / triplets.s.dtype.type(factor)
    tall, small = slab.tall_result(ctx, triplets.U), slab.small_result(ctx, triplets.V)
    return (small, s, tall) if slab.flipped else (tall, s, small)


def _full(ctx: TaskContext, A: DistMatrix, k: int, factor: float) -> tuple[DistMatrix, Array, DistMatrix]:
    """Return the triplets from the full SVD by ScaLAPACK's p?gesvd. Collective over comm."""
    ctx.progress(0, 1, "full SVD (p?gesvd)")
    work = grid_copy(A)
    work.local[...] *= work.local.real.dtype.type(factor)
    U, S, Vt, info = scalapack.gesvd(work)
    # info = min(m, n) + 1 only reports that the ranks' arithmetic differs in the last bits
    if 0 < info <= min(A.shape):
        raise ConvergenceError(ctx.task, f"{info} superdiagonals of p?gesvd did not converge to zero")
    ctx.progress(1, 1, "done")
    return leading_columns(U, k), S[:k] / S.dtype.type(factor), leading_rows(Vt, k)
