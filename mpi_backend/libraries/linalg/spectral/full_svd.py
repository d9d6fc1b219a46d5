"""The full singular value decomposition of a dense matrix.

If one side is more than twice the other, TSQR comes first, and one rank computes the SVD of the triangle. Otherwise one
rank (see :mod:`..one_rank`) calls LAPACK's ?gesdd (divide and conquer) through SciPy, or all ranks call ScaLAPACK's
p?gesvd (QR iterations; ScaLAPACK has no faster routine).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ConvergenceError
from alchemist_ray.mpi_backend import scalapack
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, one_rank, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.factorizations import orthogonal
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import grid_copy
from alchemist_ray.mpi_backend.libraries.linalg.scaling import safely_scaled, scale_safely
from alchemist_ray.mpi_backend.libraries.linalg.slabs import RowSlab, slab_of
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.libraries.linalg.spectral.triplets import Triplets
from alchemist_ray.mpi_backend.scalapack import spectral

Array = npt.NDArray[Any]
Factors = tuple[DistMatrix, Array, DistMatrix]

LARGEST_TRIANGLE = 6000
"""The largest short side for which one rank computes the SVD of R, which every rank holds."""

_NARROW = 32
"""The short side up to which TSQR is always used: for a 2 x 1 matrix on two ranks p?gesvd does not return."""


@task
def svd(
    ctx: TaskContext, A: DistMatrix, full_matrices: bool = False, compute_uv: bool = True
) -> tuple[DistMatrix, npt.NDArray[Any], DistMatrix] | npt.NDArray[Any]:
    """Return the singular value decomposition A = U diag(s) Vt.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix; float32, float64, complex64 or complex128.
    full_matrices : bool
        Whether to return square U and Vt. SciPy's default is True, which is rarely useful and always expensive.
    compute_uv : bool
        Whether to compute U and Vt as well.

    Returns
    -------
    U : DistMatrix, shape (m, p), or (m, m) with `full_matrices`
        Left singular vectors, orthonormal; ``p = min(m, n)``.
    s : ndarray, shape (p,)
        Singular values, descending. Without `compute_uv` the only result.
    Vt : DistMatrix, shape (p, n), or (n, n) with `full_matrices`
        Right singular vectors, conjugated and transposed.

    Raises
    ------
    ArgumentError
        If A has another dtype.
    NonFiniteError
        If A contains NaN or Inf.
    ConvergenceError
        If a singular value does not converge.

    Notes
    -----
    Collective over comm. Let p be the smaller side and q the larger. The first method that applies is used:

    - p <= 32, or q >= 2p, q >= p times the number of ranks and p <= 6,000; without `full_matrices`: TSQR (Demmel et
      al., SIAM J. Sci. Comput. 34 (2012), A206) and the SVD of R on rank 0; 4qp^2 + about 22 p^3 operations; two
      distributed copies of A, and a triangle on every rank;
    - all ranks share a host and eight copies of A fit in half its memory, or q is at most 1,000: LAPACK's ?gesdd on
      rank 0 with the threads of all ranks;
    - p?gesvd: three distributed copies of A, and 12 q p^2 or more operations; with `full_matrices` also a QR
      factorisation of a q x q matrix.

    ‖A − U diag(s) Vt‖ and the orthogonality of the factors are of the order max(m, n) eps.
    """
    checks.require_floating(ctx, A=A)
    if small_problems.suits("svd", A.shape):
        found: Any = small_problems.solved(ctx, lambda A: _of_whole(A, full_matrices, compute_uv), A=A)
        return found  # type: ignore[no-any-return]  # as the signature says
    checks.require_finite(ctx, A=A)
    if slender(A) and not full_matrices:
        return by_triangle(ctx, A, compute_uv)
    where = on_one_rank if one_rank.preferred(ctx, A.shape, A.dtype) else on_all_ranks
    return where(ctx, A, full_matrices, compute_uv)


def factors(ctx: TaskContext, A: DistMatrix) -> Factors:
    """Return U, s, Vt of the economy-size decomposition; the caller has checked `A`. Collective over comm."""
    if slender(A):
        return by_triangle(ctx, A, vectors=True)  # type: ignore[return-value]  # with vectors, no values alone
    where = on_one_rank if one_rank.preferred(ctx, A.shape, A.dtype) else on_all_ranks
    return where(ctx, A, full=False, vectors=True)  # type: ignore[return-value]  # likewise


def slender(A: DistMatrix) -> bool:
    """Whether one side of `A` is so short that TSQR comes first. Local."""
    p, q = sorted(A.shape)
    return p <= _NARROW or (q >= p * max(2, A.comm.size) and p <= LARGEST_TRIANGLE)


def by_triangle(ctx: TaskContext, A: DistMatrix, vectors: bool) -> Factors | Array:
    """Return the economy-size decomposition, or only the singular values, by TSQR. Collective over comm."""
    A, factor = safely_scaled(A)
    slab = slab_of(A)
    if vectors:
        triplets = slab_triplets(ctx, slab, min(A.shape))
        s: Array = triplets.s / triplets.s.dtype.type(factor)
        return as_factors(ctx, slab, Triplets(triplets.U, s, triplets.V))
    R = TSQR.of(ctx, slab.local, slab.shape[0]).R
    found = one_rank.run(ctx, operations(R.shape, False), R.dtype, lambda: np.linalg.svd(R, compute_uv=False))
    s = ctx.comm.bcast(found, one_rank.ROOT)
    values: Array = s / s.dtype.type(factor)
    return values


def slab_triplets(ctx: TaskContext, slab: RowSlab, k: int) -> Triplets:
    """Return the leading `k` triplets of a slab from the SVD of R in A = Q R. Collective over comm."""
    ctx.progress(0, 1, "QR factorisation")
    tree = TSQR.of(ctx, slab.local, slab.shape[0])
    ctx.progress(0.5, 1, "SVD of the triangle")
    rows, n = tree.R.shape
    P, s, Qh = triangle_svd(ctx, tree.R) or (None, None, None)
    P = _broadcast(ctx, P if P is None else P[:, :k], (rows, k), slab.dtype)
    Qh = _broadcast(ctx, Qh if Qh is None else Qh[:k], (k, n), slab.dtype)
    s = ctx.comm.bcast(s if s is None else s[:k].copy(), one_rank.ROOT)
    return Triplets(tree.apply(P), s, Qh.conj().T)


def triangle_svd(ctx: TaskContext, R: Array) -> tuple[Array, Array, Array] | None:
    """Return the economy-size decomposition of R, which every rank passes, on one rank, else None. Collective."""

    def decompose() -> tuple[Array, Array, Array]:
        P, s, Qh = np.linalg.svd(R, full_matrices=False)
        return P, s, Qh

    return one_rank.run(ctx, operations(R.shape, True), R.dtype, decompose)


def operations(shape: tuple[int, ...], vectors: bool, full: bool = False) -> float:
    """Return the approximate number of operations of LAPACK's ?gesdd."""
    p, q = sorted(shape)
    return 4 * q * p**2 + (22 * p**3 if vectors else 0) + (4 * q**2 * p if full else 0)


def _broadcast(ctx: TaskContext, A: Array | None, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Return the root's array on every rank. Collective over comm."""
    whole = np.empty(shape, dtype) if A is None else np.ascontiguousarray(A)
    ctx.comm.Bcast(whole, one_rank.ROOT)
    return whole


def as_factors(ctx: TaskContext, slab: RowSlab, triplets: Triplets) -> Factors:
    """Return U, s, Vt of the matrix whose tall view is `slab`. Collective over comm."""
    tall, small = slab.tall_result(ctx, triplets.U), slab.small_result(ctx, triplets.V)
    return (small, triplets.s, tall) if slab.flipped else (tall, triplets.s, small)


def on_one_rank(ctx: TaskContext, A: DistMatrix, full: bool, vectors: bool) -> Factors | Array:
    """Return the decomposition, or only the singular values, by LAPACK on one rank. Collective over comm."""
    ctx.progress(0, 1, "SVD (LAPACK)")
    (m, n), p, dtype = A.shape, min(A.shape), A.dtype
    count = operations(A.shape, vectors, full and vectors)
    U, s, Vt = one_rank.run_on(ctx, A, count, lambda whole: _by_lapack(whole, full, vectors)) or (None, None, None)
    s = ctx.comm.bcast(s, one_rank.ROOT)
    if not vectors:
        values: Array = s
        return values
    left, right = (m, m if full else p), (n if full else p, n)
    return one_rank.dealt(ctx, U, left, dtype), s, one_rank.dealt(ctx, Vt, right, dtype)


def _by_lapack(A: Array, full: bool, vectors: bool) -> tuple[Array | None, Array, Array | None]:
    """Return U, s, Vt of C-ordered `A`, which is destroyed, by ?gesdd of the transpose A^T = conj(V) s U^T. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    found = scipy.linalg.svd(A.T, full_matrices=full, compute_uv=vectors, overwrite_a=True, check_finite=False)
    if not vectors:
        return None, found, None
    V, s, Ut = found
    return Ut.T, s, V.T


def _of_whole(A: Array, full: bool, vectors: bool) -> Any:
    """Return the results of :func:`svd` for a whole matrix. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    found = scipy.linalg.svd(A, full_matrices=full, compute_uv=vectors, overwrite_a=True, check_finite=False)
    if not vectors:
        return found
    U, s, Vt = found
    return Whole(U), s, Whole(Vt)


def on_all_ranks(ctx: TaskContext, A: DistMatrix, full: bool, vectors: bool) -> Factors | Array:
    """Return the decomposition, or only the singular values, by ScaLAPACK. Collective over comm."""
    if not vectors:
        return _values_by_scalapack(ctx, A) if min(A.shape) > _NARROW else by_triangle(ctx, A, vectors=False)
    # with vectors=True by_triangle returns factors
    U, s, Vt = _by_scalapack(ctx, A) if min(A.shape) > _NARROW else by_triangle(ctx, A, vectors=True)
    return (_completed_columns(ctx, U), s, _completed_rows(ctx, Vt)) if full else (U, s, Vt)


def _by_scalapack(ctx: TaskContext, A: DistMatrix) -> Factors:
    work, factor = _scaled_copy(ctx, A)
    U, s, Vt, info = scalapack.gesvd(work)
    _require_converged(ctx, info, A)
    return U, _values(ctx, s, factor), Vt


def _values_by_scalapack(ctx: TaskContext, A: DistMatrix) -> Array:
    work, factor = _scaled_copy(ctx, A)
    s, info = spectral.singular_values(work)
    _require_converged(ctx, info, A)
    return _values(ctx, s, factor)


def _scaled_copy(ctx: TaskContext, A: DistMatrix) -> tuple[DistMatrix, float]:
    """Return a scaled copy of `A`, which ScaLAPACK may destroy, and the scale factor. Collective over comm."""
    ctx.progress(0, 1, "SVD (ScaLAPACK)")
    work = grid_copy(A)
    return work, scale_safely(work)


def _values(ctx: TaskContext, s: Array, factor: float) -> Array:
    values: Array = ctx.comm.bcast(s / s.dtype.type(factor), one_rank.ROOT)
    return values


def _require_converged(ctx: TaskContext, info: int, A: DistMatrix) -> None:
    """Raise ConvergenceError if p?gesvd failed; info = min(m, n) + 1 only reports that last bits differ on ranks."""
    worst = ctx.comm.allreduce(info if info <= min(A.shape) else 0, MPI.MAX)
    if worst > 0:
        raise ConvergenceError(ctx.task, f"{worst} superdiagonals of p?gesvd did not converge to zero")


def _completed_columns(ctx: TaskContext, U: DistMatrix) -> DistMatrix:
    """Return orthonormal columns completed to a basis, in MC_MR. Collective over comm.

    The matrix U with random columns appended has a QR factorisation whose Q begins with the columns of U, each times a
    factor of modulus 1. These columns are replaced by those of U.
    """
    m, p = U.shape
    if p == m:
        return U
    known = U.relayout("VC_STAR")
    beside = checks.new_like(U, (m, m), "VC_STAR")
    beside.local[...] = np.random.default_rng([0, ctx.comm.rank]).standard_normal(beside.local.shape)
    beside.local[:, :p] = known.local
    Q, _ = orthogonal.qr(ctx, beside)
    basis: DistMatrix = Q.relayout(beside.layout)
    basis.local[:, :p] = known.local
    return basis.relayout("MC_MR")


def _completed_rows(ctx: TaskContext, Vt: DistMatrix) -> DistMatrix:
    p, n = Vt.shape
    return Vt if p == n else _completed_columns(ctx, Vt.transpose("MC_MR")).transpose("MC_MR")
