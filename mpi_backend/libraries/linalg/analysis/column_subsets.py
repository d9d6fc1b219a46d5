"""CX: a matrix from a few of its own columns.

    A ~ C X,   C some columns of A,   X = C^+ A

Unlike singular vectors, columns of the matrix have a meaning in the application. They are chosen by their leverage
scores: score l_j is the squared norm of column j in Vt, the matrix of the leading k right singular vectors. The scores
add up to k. Columns with large scores matter most for the leading singular vectors.

Sources: M. Mahoney, P. Drineas, *CUR matrix decompositions for improved data analysis*, PNAS 106 (2009), 697; for the
deterministic choice D. Papailiopoulos, A. Kyrillidis, C. Boutsidis, KDD 2014, 997.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.libraries.linalg.analysis.samples import samples_of
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.matrices import products
from alchemist_ray.mpi_backend.libraries.linalg.matrices.factors import Form
from alchemist_ray.mpi_backend.libraries.linalg.spectral import full_svd
from alchemist_ray.mpi_backend.libraries.linalg.spectral.singular import truncated_svd

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


@task
def leverage_scores(
    ctx: TaskContext, A: DistMatrix | SparseDistMatrix, k: int, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the leverage scores of the columns of a matrix for its best approximation of rank k.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, n)
        The matrix, of a floating-point type.
    k : int
        The rank, ``1 <= k <= min(m, n)``.
    seed : int
        Seed of the iteration for large matrices, see :func:`truncated_svd`.

    Returns
    -------
    ndarray of float64, shape (n,)
        Squared norms of the columns of Vt for the leading k triplets; each is between 0 and 1, and their sum is k.

    Raises
    ------
    ArgumentError, ArgumentValueError, NonFiniteError, ConvergenceError
        As in :func:`truncated_svd`.

    Notes
    -----
    The work and memory of :func:`truncated_svd`. If the k-th singular value is multiple, the scores are not unique.
    Source: Mahoney and Drineas, PNAS 106 (2009), 697.
    """
    _, _, Vt = truncated_svd(ctx, A, k, seed=seed)
    return _squared_norms(Vt)


@task
def cx(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    k: int,
    n_columns: int | None = None,
    method: Literal["leverage", "deterministic"] = "leverage",
    seed: int = 0,
) -> tuple[Indices, DistMatrix, DistMatrix]:
    """Return a factorisation A ~ C X, where C consists of columns of A.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, n)
        The matrix, of a floating-point type.
    k : int
        The target rank, ``1 <= k <= min(m, n)``.
    n_columns : int, optional
        Number of columns to choose, ``k <= n_columns <= n``; by default k + max(10, k), or n if that is less. With more
        columns C X is as close to A as the best approximation of rank k, or closer.
    method : str
        ``"leverage"``: columns are drawn without replacement, with probabilities proportional to their leverage scores
        for rank k. ``"deterministic"``: the columns with the largest scores; this works well if the scores decay
        steeply, but may choose columns that are multiples of each other.
    seed : int
        Seed of the choice, and of the iteration for large matrices.

    Returns
    -------
    indices : ndarray of int64, shape (n_columns,)
        The chosen columns, ascending.
    C : DistMatrix, shape (m, n_columns)
        These columns, in VC_STAR.
    X : DistMatrix, shape (n_columns, n)
        The X for which C X is nearest to A: the pseudoinverse of C times A. Singular values of C below the rounding
        error of its largest one count as zero.

    Raises
    ------
    ArgumentError
        If A is not of a floating-point type.
    ArgumentValueError
        If k or n_columns is out of range, or the method is unknown.
    NonFiniteError
        If A contains NaN or Inf.
    ConvergenceError
        As in :func:`truncated_svd`.

    Notes
    -----
    The work of :func:`truncated_svd` for k triplets, and 2mnc + 4mc^2 operations for c columns. Memory: that of
    truncated_svd, and a copy of A if it is not in VC_STAR.

    Mahoney and Drineas draw columns independently and scale them, so the number of columns is random; here you choose
    it.
    """
    checks.require_floating(ctx, A=A)
    checks.require_rank(ctx, "k", k, A.shape)
    n = A.shape[1]
    count = min(n, k + max(10, k)) if n_columns is None else n_columns
    if not k <= count <= n:
        raise ArgumentValueError(
            ctx.task, f"n_columns must lie in {k}..{n}, from k to the columns of A, but is {count}"
        )
    if method not in ("leverage", "deterministic"):
        raise ArgumentValueError(ctx.task, f"method must be 'leverage' or 'deterministic', but is {method!r}")
    scores = leverage_scores(ctx, A, k, seed)
    ctx.progress(0.7, 1, "columns")
    indices = ctx.comm.bcast(_chosen(scores, count, method, seed) if ctx.comm.rank == 0 else None)
    C = _columns(ctx, A, indices)
    X = _nearest(ctx, C, A)
    ctx.progress(1, 1, "done")
    return indices, C, X


def _squared_norms(V: DistMatrix) -> npt.NDArray[np.float64]:
    """Return the squared norms of the columns of V on every rank. Collective over comm."""
    norms = np.zeros(V.shape[1])
    if V.layout.is_source(V.comm.rank) and V.local.size:
        norms[V.cols.indices()] = np.sum(np.abs(V.local) ** 2, axis=0, dtype=np.float64)
    V.comm.Allreduce(norms.copy(), norms)
    V.comm.Bcast(norms)
    return norms


def _chosen(scores: npt.NDArray[np.float64], count: int, method: str, seed: int) -> Indices:
    """Return the indices of the chosen columns. Local."""
    if method == "leverage":
        # the smallest exponential variables with these rates form a sample without replacement (Efraimidis 2006)
        waits = np.random.default_rng(seed).exponential(size=scores.size)
        order = np.argsort(waits / np.maximum(scores, np.finfo(float).tiny), kind="stable")
    else:
        order = np.argsort(-scores, kind="stable")
    return np.sort(order[:count])


def _columns(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, indices: Indices) -> DistMatrix:
    """Return some columns of A, distributed by rows. Collective over comm."""
    rows = samples_of(A)
    layout = dataclasses.replace(rows.layout, block=(rows.layout.block[0], len(indices)))
    C = checks.allocated(ctx, (A.shape[0], len(indices)), A.dtype, layout)
    columns = rows.local[:, indices]
    C.local[...] = columns.toarray() if rows.sparse else columns
    return C


def _nearest(ctx: TaskContext, C: DistMatrix, A: DistMatrix | SparseDistMatrix) -> DistMatrix:
    """Return the X for which C X is nearest to A. Collective over comm.

    With C = Q R and R = U diag(s) V^H, Q U is an orthonormal basis and X = V diag(1/s) (Q U)^H A.
    """
    factors = TSQR.of(ctx, C.local, C.shape[0])
    U, s, Vh = ctx.comm.bcast(full_svd.triangle_svd(ctx, factors.R))
    rank = max(1, int(np.count_nonzero(s > max(C.shape) * np.finfo(s.dtype).eps * s[0])))
    basis = checks.allocated(
        ctx, (C.shape[0], rank), C.dtype, dataclasses.replace(C.layout, block=(C.layout.block[0], rank))
    )
    basis.local[...] = factors.apply(U[:, :rank])
    projected = products.product(ctx, basis, A, Form(transpose_a=True, conjugate_a=True))
    inverse = Vh[:rank].conj().T / np.where(s[:rank] > 0, s[:rank], 1)
    return products.product(ctx, checks.replicated(ctx, inverse, "MC_MR"), projected, Form())
