"""Principal components: the leading singular triplets of the samples minus their mean.

The matrix to decompose is the tall matrix of :mod:`.centred`, which is not copied. Let p be the smaller of the numbers
of samples and features.

- p up to 2,000: the p x p Gram matrix, in double precision, and its eigenvectors. The Gram matrix squares the condition
  number. So if the variance of the last wanted component is too small compared with that of the first, the SVD of the
  triangle R of a QR factorisation, computed panel by panel, is used instead.
- Larger p, or a sparse matrix: thick-restart block Lanczos (:mod:`..spectral.lanczos`), which needs only products with
  the matrix.
- If k is too large for Lanczos, or it does not converge: the triangle, for any p.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, one_rank
from alchemist_ray.mpi_backend.libraries.linalg.analysis.centred import Centred, centred
from alchemist_ray.mpi_backend.libraries.linalg.analysis.samples import require_real
from alchemist_ray.mpi_backend.libraries.linalg.slabs import SparseSlab
from alchemist_ray.mpi_backend.libraries.linalg.spectral import full_svd
from alchemist_ray.mpi_backend.libraries.linalg.spectral.lanczos import (
    LanczosPlan,
    block_size,
    lanczos_svd,
    trustworthy,
)
from alchemist_ray.mpi_backend.libraries.linalg.spectral.triplets import Triplets, rayleigh_ritz

Array = npt.NDArray[Any]

_SMALL = 2000
"""The largest p for which the Gram matrix is used."""

_SMALL_SPARSE = 200
"""The same for a sparse matrix; it is smaller because the Gram matrix is computed from dense panels."""

_TOLERANCE = 1e-10
"""Accepted relative error of a variance from the Gram matrix, and of the residuals of the iteration."""

_ITERATIONS = 300


@task
def pca(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    n_components: int | None = None,
    scores: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the principal components of samples.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (n_samples, n_features)
        The samples in rows, float32 or float64.
    n_components : int, optional
        Number of components, at most ``min(n_samples, n_features)``, which is also the default.
    scores : bool
        Whether to also return the coordinates of the samples in the components.
    seed : int
        Seed of the random start of the iteration for large matrices.

    Returns
    -------
    dict
        Named as in scikit-learn, for k components:

        - ``components``: DistMatrix, shape (k, n_features), orthonormal rows, by decreasing variance. The largest
          entry of each is positive, as in scikit-learn.
        - ``explained_variance``: ndarray, shape (k,): the variance of the samples along each component, with
          n_samples - 1 degrees of freedom.
        - ``explained_variance_ratio``: ndarray, shape (k,): the same as a share of the variance of all features.
        - ``singular_values``: ndarray, shape (k,), of the samples minus their mean.
        - ``mean``: ndarray, shape (n_features,).
        - ``scores``: DistMatrix, shape (n_samples, k), if `scores` is True: ``(A - mean) components^T``.

    Raises
    ------
    ArgumentError
        If A is not float32 or float64.
    ArgumentValueError
        If n_components is out of range, or there is only one sample.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    Let p be the smaller and q the larger side. For p up to 2,000: p^2 q operations, or 2 p^2 q if the variances differ
    by more than about 1e4 times p, and on each rank two p x p matrices in double precision. For larger p, and for
    sparse matrices with p over 200: the iteration of :func:`truncated_svd` with 4pq(k + 8) operations per block, and
    another 2 p^2 q only if it does not converge or k is above p/9 (sparse: p/3). Memory: a copy of A if it is not
    distributed along its longer side, and 8 MiB.

    The mean of a sparse matrix is subtracted from its products, not from its elements, so components and variances lose
    digits if the mean is much larger than the deviations from it.

    Source: I. Jolliffe, *Principal Component Analysis*, 2nd ed., section 3.5.
    """
    dtype = require_real(ctx, A=A)
    if A.shape[0] < 2:
        raise ArgumentValueError(ctx.task, f"a variance needs at least two samples, but A has {A.shape[0]}")
    k = min(A.shape) if n_components is None else n_components
    checks.require_rank(ctx, "n_components", k, A.shape)
    checks.require_finite(ctx, A=A)
    matrix, factor = centred(A)
    ctx.progress(0.1, 1, "components")
    triplets = _signed(matrix, _leading(ctx, matrix, k, seed))
    s = triplets.s.astype(np.float64)
    squares = matrix.sum_of_squares()
    with np.errstate(over="ignore"):  # a variance may overflow even if the samples do not
        result = {
            "explained_variance": ((s / math.sqrt(A.shape[0] - 1) / factor) ** 2).astype(dtype),
            "explained_variance_ratio": (s**2 / squares if squares > 0 else np.zeros(k)).astype(dtype),
            "singular_values": (s / factor).astype(dtype),
            "mean": (matrix.mean_row(ctx) / factor).astype(dtype),
        }
    ctx.progress(1, 1, "done")
    return result | _matrices(ctx, matrix, triplets, factor, scores)


def _leading(ctx: TaskContext, matrix: Centred, k: int, seed: int) -> Triplets:
    """Return the leading triplets of the tall matrix, by the method for its shape. Collective over comm.

    If it is not flipped, U may be empty; a product gives the scores as well.
    """
    p = matrix.shape[1]
    sparse = isinstance(matrix.slab, SparseSlab)
    if p > (_SMALL_SPARSE if sparse else _SMALL):
        triplets = _iterated(ctx, matrix, k, seed, sparse)
        if triplets is not None:
            return triplets
    s, V = _small_side(ctx, matrix, k)
    if matrix.flipped:
        return rayleigh_ritz(matrix, V)
    return Triplets(np.empty((matrix.height, 0), V.dtype), s, V)


def _iterated(ctx: TaskContext, matrix: Centred, k: int, seed: int, sparse: bool) -> Triplets | None:
    """Return the leading triplets by iteration, or None if k is too large or it does not converge. Collective."""
    tolerance = max(_TOLERANCE, 100 * float(np.finfo(matrix.dtype).eps))
    plans = [LanczosPlan.narrow(k, matrix.shape[1])] if sparse else []
    for plan in [*plans, LanczosPlan.wide(k, matrix.shape[1])]:
        if plan is None:
            return None
        triplets = lanczos_svd(matrix, plan, tolerance, seed, _ITERATIONS * block_size(k), _progress(ctx, tolerance))
        if triplets is None or plan.block > k or trustworthy(triplets.s, plan.block, tolerance):
            return triplets
    return None


def _progress(ctx: TaskContext, tolerance: float) -> Any:
    def progress(count: int, residual: float) -> None:
        done = math.log(max(residual, tolerance)) / math.log(tolerance)
        ctx.check_cancelled()
        ctx.progress(min(max(0.1, done), 0.99), 1, f"Lanczos, {count} vectors, residual {residual:.1e}")

    return progress


def _small_side(ctx: TaskContext, matrix: Centred, k: int) -> tuple[Array, Array]:
    """Return the leading singular values and the vectors of the short side, shape (p, k), on every rank. Collective."""
    found = None
    if matrix.shape[1] <= _SMALL:
        G = matrix.gram(ctx)
        found = matrix.comm.bcast(one_rank.run(ctx, 9 * len(G) ** 3, G.dtype, lambda: _from_gram(G, k)))
    if found is None:
        ctx.progress(0.4, 1, "QR factorisation")
        R = matrix.triangle(ctx)
        ctx.progress(0.8, 1, "SVD of the triangle")
        _, s, Vt = matrix.comm.bcast(full_svd.triangle_svd(ctx, R))
        found = s[:k], Vt[:k].T
    s, V = found
    return s.astype(matrix.dtype), V.astype(matrix.dtype, order="C")


def _from_gram(G: Array, k: int) -> tuple[Array, Array] | None:
    """Return the leading singular values and right singular vectors; None if they would lose too many digits."""
    squares, V = np.linalg.eigh(G)
    squares, V = squares[: -k - 1 : -1], V[:, : -k - 1 : -1]
    if len(G) * np.finfo(G.dtype).eps * squares[0] > _TOLERANCE * squares[-1]:
        return None
    return np.sqrt(squares), V.copy()


def _signed(matrix: Centred, triplets: Triplets) -> Triplets:
    """Return the triplets with the largest entry of each component positive. Collective over comm."""
    components = triplets.U if matrix.flipped else triplets.V
    k = triplets.s.size
    largest = np.zeros((2, k))  # the entry with the largest magnitude, and its magnitude
    if len(components):
        largest[0] = components[np.abs(components).argmax(0), np.arange(k)]
        largest[1] = np.abs(largest[0])
    everywhere = np.array(matrix.comm.allgather(largest))
    entries = everywhere[everywhere[:, 1].argmax(0), 0, np.arange(k)]
    signs = np.where(entries < 0, -1, 1).astype(matrix.dtype)
    return Triplets(triplets.U * signs if triplets.U.size else triplets.U, triplets.s, triplets.V * signs)


def _matrices(
    ctx: TaskContext, matrix: Centred, triplets: Triplets, factor: float, scores: bool
) -> dict[str, DistMatrix]:
    """Return the components, and the scores if wanted. Collective over comm."""
    if matrix.flipped:  # the features are on the long side
        result = {"components": matrix.tall_result(ctx, triplets.U)}
        if scores:
            unscaled = triplets.V * (triplets.s / triplets.s.dtype.type(factor))
            result["scores"] = matrix.small_result(ctx, unscaled)
        return result
    result = {"components": matrix.small_result(ctx, triplets.V)}
    if scores:
        result["scores"] = matrix.tall_result(ctx, matrix.product(triplets.V) / matrix.dtype.type(factor))
    return result
