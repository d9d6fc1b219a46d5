"""Leading singular triplets by a randomised subspace iteration.

A random block is multiplied by A and A^H for a few rounds; its span is then close to the span of the leading singular
vectors. How close depends on how fast the singular values decay; there is no tolerance. Each block is orthonormalised
before the next product, because otherwise rounding would leave only the first vector. The last step is a Rayleigh-Ritz
step, which makes A v - sigma u zero, so the error of a singular value is the square of the error of its vectors.

With l = k + oversampling columns and q rounds the expected error of the best approximation in the span is at most
``(1 + 4 sqrt(2 n / (k - 1)))^(1 / (2q + 1)) sigma_{k+1}`` for oversampling k, with n the short side.

Source: N. Halko, P.-G. Martinsson, J. Tropp, *Finding structure with randomness*, SIAM Review 53 (2011), 217, algorithm
4.4 and corollary 10.10.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.slabs import TallMatrix
from alchemist_ray.mpi_backend.libraries.linalg.spectral.lanczos import normal
from alchemist_ray.mpi_backend.libraries.linalg.spectral.triplets import Triplets, rayleigh_ritz

Array = npt.NDArray[Any]


def randomized_svd(slab: TallMatrix, k: int, oversampling: int, rounds: int, seed: int) -> Triplets:
    """Return approximations to the leading `k` triplets of a slab. Collective over comm.

    Parameters
    ----------
    slab : TallMatrix
        The matrix, scaled so that its squares neither overflow nor underflow.
    k : int
        Number of triplets.
    oversampling : int
        Columns of the block beyond `k`; the block is not wider than the short side.
    rounds : int
        Rounds of products with A and A^H, at least one.
    seed : int
        Seed of the random block. The same seed on the same number of ranks gives the same result.
    """
    comm, n = slab.comm, slab.shape[1]
    cuts = np.array([n * rank // comm.size for rank in range(comm.size + 1)])
    heights = np.diff(cuts)
    mine = int(heights[comm.rank])
    V = normal(np.random.default_rng([seed, comm.rank]), (mine, min(k + oversampling, n)), slab.dtype)
    for _ in range(rounds):
        Q = TSQR(comm, slab.product(_gathered(slab, V, heights))).q()
        V = TSQR(comm, slab.transposed_share(Q, heights)).q()
    found = rayleigh_ritz(slab, _gathered(slab, V, heights))
    return Triplets(found.U[:, :k], found.s[:k], found.V[:, :k])


def _gathered(slab: TallMatrix, V: Array, heights: Array) -> Array:
    """Return all rows of V on every rank; each rank passes its share. Collective over comm."""
    whole = np.empty((int(heights.sum()), V.shape[1]), V.dtype)
    slab.comm.Allgatherv(np.ascontiguousarray(V), [whole, heights * V.shape[1]])
    return whole
