"""The whole singular value decomposition of a dense matrix.

Where one side is more than twice the other, TSQR first: the SVD of the triangle is all that remains, and is done by one
rank. Else, on one rank (see :mod:`..one_rank`) LAPACK's ?gesdd (divide and conquer), by SciPy; on all ranks ScaLAPACK's
p?gesvd (QR iterations: ScaLAPACK has nothing faster).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ConvergenceError
from alchemist_ray.mpi_backend import scalapack
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, one_rank
from alchemist_ray.mpi_backend.libraries.linalg.factorizations import orthogonal
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import grid_copy
from alchemist_ray.mpi_backend.libraries.linalg.scaling import scale_safely
from alchemist_ray.mpi_backend.libraries.linalg.shapes import require_elements
from alchemist_ray.mpi_backend.libraries.linalg.slabs import RowSlab, slab_of
from alchemist_ray.mpi_backend.libraries.linalg.spectral.triplets import Triplets
from alchemist_ray.mpi_backend.scalapack import spectral

Array = npt.NDArray[Any]
Factors = tuple[DistMatrix, Array, DistMatrix]

LARGEST_TRIANGLE = 6000
"""The largest short side for which one rank takes the SVD of R, which every rank holds."""

_NARROW = 32
"""The short side up to which TSQR is always taken: p?gesvd does not return from a 2 x 1 matrix on two ranks."""


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
        Whether U and Vt are to be square. SciPy's default is True, which is rarely wanted and never cheap.
    compute_uv : bool
        Whether to compute U and Vt too.

    Returns
    -------
    U : DistMatrix, shape (m, p), or (m, m) with `full_matrices`
        Left singular vectors, orthonormal; ``p = min(m, n)``.
    s : ndarray, shape (p,)
        Singular values, descending. Without `compute_uv` alone.
    Vt : DistMatrix, shape (p, n), or (n, n) with `full_matrices`
        Right singular vectors, conjugated and transposed.

    Raises
    ------
    ArgumentError
        If A has another dtype.
    ArgumentValueError
        If A is empty.
    NonFiniteError
        If A contains NaN or Inf.
    ConvergenceError
        If a singular value does not converge.

    Notes
    -----
    Collective over comm. With p the smaller side and q the larger, the first that applies:

    - p <= 32, or q >= 2p, q >= p times the number of ranks and p <= 6,000; not `full_matrices`: TSQR (Demmel et al.,
      SIAM J. Sci. Comput. 34 (2012), A206) and the SVD of R on rank 0; 4qp^2 + some 22 p^3 operations; two copies of
      A, dealt, and a triangle on every rank;
    - where the ranks share a host and eight copies of A fit in half its memory, and for q up to 1,000: LAPACK's
      ?gesdd on rank 0 with the threads of all ranks;
    - p?gesvd: three copies of A, dealt, and some 12 q p^2 operations and more; with `full_matrices` a QR factorisation
      of a q x q matrix besides.

    ‖A − U diag(s) Vt‖ and the orthogonality of the factors are of the order max(m, n) eps.
    """
    checks.require_floating(ctx, A=A)
    require_elements(ctx, A=A)
    checks.require_finite(ctx, A=A)
    if slender(A) and not full_matrices:
        return by_triangle(ctx, A, compute_uv)
    where = on_one_rank if one_rank.preferred(ctx, A.shape, A.dtype) else on_all_ranks
    return where(ctx, A, full_matrices, compute_uv)


def factors(ctx: TaskContext, A: DistMatrix) -> Factors:
    """Return U, s, Vt of the economic decomposition of a matrix that has been checked. Collective over comm."""
    if slender(A):
        return by_triangle(ctx, A, vectors=True)  # type: ignore[return-value]  # with vectors, no values alone
    where = on_one_rank if one_rank.preferred(ctx, A.shape, A.dtype) else on_all_ranks
    return where(ctx, A, full=False, vectors=True)  # type: ignore[return-value]  # likewise


def slender(A: DistMatrix) -> bool:
    """Whether `A` is so much longer than wide, or so narrow, that TSQR comes first. Local."""
    p, q = sorted(A.shape)
    return p <= _NARROW or (q >= p * max(2, A.comm.size) and p <= LARGEST_TRIANGLE)


def by_triangle(ctx: TaskContext, A: DistMatrix, vectors: bool) -> Factors | Array:
    """Return the economic decomposition, or the singular values alone, by TSQR. Collective over comm."""
    slab = slab_of(A)
    if vectors:
        return as_factors(ctx, slab, slab_triplets(ctx, slab, min(A.shape)))
    R = TSQR(slab.comm, slab.local).R
    s: Array = ctx.comm.bcast(one_rank.run(ctx, lambda: np.linalg.svd(R, compute_uv=False)), one_rank.ROOT)
    return s


def slab_triplets(ctx: TaskContext, slab: RowSlab, k: int) -> Triplets:
    """Return the leading `k` triplets of a slab from the SVD of R in A = Q R. Collective over comm."""
    ctx.progress(0, 1, "QR factorisation")
    tree = TSQR(slab.comm, slab.local)
    ctx.progress(0.5, 1, "SVD of the triangle")
    rows, n = tree.R.shape
    P, s, Qh = one_rank.run(ctx, lambda: np.linalg.svd(tree.R, full_matrices=False)) or (None, None, None)
    P = _broadcast(ctx, P if P is None else P[:, :k], (rows, k), slab.dtype)
    Qh = _broadcast(ctx, Qh if Qh is None else Qh[:k], (k, n), slab.dtype)
    s = ctx.comm.bcast(s if s is None else s[:k].copy(), one_rank.ROOT)
    return Triplets(tree.apply(P), s, Qh.conj().T)


def _broadcast(ctx: TaskContext, A: Array | None, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Return on every rank the array that the root has. Collective over comm."""
    whole = np.empty(shape, dtype) if A is None else np.ascontiguousarray(A)
    ctx.comm.Bcast(whole, one_rank.ROOT)
    return whole


def as_factors(ctx: TaskContext, slab: RowSlab, triplets: Triplets) -> Factors:
    """Return U, s, Vt of the matrix of which `slab` is a tall view. Collective over comm."""
    tall, small = slab.tall_result(ctx, triplets.U), slab.small_result(ctx, triplets.V)
    return (small, triplets.s, tall) if slab.flipped else (tall, triplets.s, small)


def on_one_rank(ctx: TaskContext, A: DistMatrix, full: bool, vectors: bool) -> Factors | Array:
    """Return the decomposition, or the singular values alone, by LAPACK on one rank. Collective over comm."""
    ctx.progress(0, 1, "SVD (LAPACK)")
    (m, n), p, dtype = A.shape, min(A.shape), A.dtype
    U, s, Vt = one_rank.run_on(ctx, A, lambda whole: _by_lapack(whole, full, vectors)) or (None, None, None)
    s = ctx.comm.bcast(s, one_rank.ROOT)
    if not vectors:
        values: Array = s
        return values
    left, right = (m, m if full else p), (n if full else p, n)
    return one_rank.dealt(ctx, U, left, dtype), s, one_rank.dealt(ctx, Vt, right, dtype)


def _by_lapack(A: Array, full: bool, vectors: bool) -> tuple[Array | None, Array, Array | None]:
    """Return U, s, Vt of C-ordered `A`, which is destroyed, by ?gesdd of the transpose A^T = conj(V) s U^T. Local."""
    import scipy.linalg  # takes longer than a worker takes to start

    found = scipy.linalg.svd(A.T, full_matrices=full, compute_uv=vectors, overwrite_a=True, check_finite=False)
    if not vectors:
        return None, found, None
    V, s, Ut = found
    return Ut.T, s, V.T


def on_all_ranks(ctx: TaskContext, A: DistMatrix, full: bool, vectors: bool) -> Factors | Array:
    """Return the decomposition, or the singular values alone, by ScaLAPACK. Collective over comm."""
    if not vectors:
        return _values_by_scalapack(ctx, A) if min(A.shape) > _NARROW else by_triangle(ctx, A, vectors=False)
    # the triangle gives factors, not values, when vectors are asked for
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
    """Return a copy of `A` for ScaLAPACK to destroy, and the factor by which it is larger. Collective over comm."""
    ctx.progress(0, 1, "SVD (ScaLAPACK)")
    work = grid_copy(A)
    return work, scale_safely(work)


def _values(ctx: TaskContext, s: Array, factor: float) -> Array:
    values: Array = ctx.comm.bcast(s / s.dtype.type(factor), one_rank.ROOT)
    return values


def _require_converged(ctx: TaskContext, info: int, A: DistMatrix) -> None:
    """Raise ConvergenceError if p?gesvd failed on a rank; info = min(m, n) + 1 says that last bits differ, no harm."""
    worst = ctx.comm.allreduce(info if info <= min(A.shape) else 0, MPI.MAX)
    if worst > 0:
        raise ConvergenceError(ctx.task, f"{worst} superdiagonals of p?gesvd did not converge to zero")


def _completed_columns(ctx: TaskContext, U: DistMatrix) -> DistMatrix:
    """Return orthonormal columns with as many more as make them a basis, in MC_MR. Collective over comm.

    Those of Q in the QR factorisation of U with random columns beside it are U's own but for a factor of modulus 1.
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
