"""Singular triplets of a slab, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.mpi_backend.linalg.slabs import TallMatrix
from alchemist_ray.mpi_backend.linalg.tsqr import TSQR

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Triplets:
    """Singular triplets of a slab, largest first.

    Attributes
    ----------
    U : ndarray, shape (mloc, k)
        This rank's rows of the left singular vectors.
    s : ndarray, shape (k,)
        The singular values, descending; equal on every rank.
    V : ndarray, shape (n, k)
        The right singular vectors; equal on every rank.
    """

    U: Array
    s: Array
    V: Array


def rayleigh_ritz(slab: TallMatrix, V: Array) -> Triplets:
    """Return the best triplets in the span of the orthonormal columns of `V` (n, k). Collective over comm.

    The SVD of A V, by TSQR, so that U is orthonormal and A v = sigma u to rounding, whatever V is.
    """
    factors = TSQR(slab.comm, slab.product(V))
    P, s, Qt = slab.comm.bcast(np.linalg.svd(factors.R) if slab.comm.rank == 0 else None)
    return Triplets(factors.apply(P), s, V @ Qt.T)


def residual(slab: TallMatrix, triplets: Triplets) -> float:
    """Return the largest norm of A^T u - sigma v over the triplets, relative to the largest sigma. Collective.

    Where the triplets come from :func:`rayleigh_ritz` the other residual, A v - sigma u, vanishes.
    """
    largest = float(triplets.s[0])
    difference = slab.transposed_product(triplets.U) - triplets.V * triplets.s
    norm = float(np.linalg.norm(difference, axis=0).max()) / largest if largest > 0 else 0.0
    return float(slab.comm.bcast(norm))
