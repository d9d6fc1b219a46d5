"""Singular triplets of a slab, and their residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.slabs import TallMatrix
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Triplets:
    """Singular triplets of a slab, largest first.

    Attributes
    ----------
    U : ndarray, shape (mloc, k)
        This rank's rows of the left singular vectors.
    s : ndarray, shape (k,)
        The singular values, descending; the same on every rank.
    V : ndarray, shape (n, k)
        The right singular vectors; the same on every rank.
    """

    U: Array
    s: Array
    V: Array


def rayleigh_ritz(slab: TallMatrix, V: Array) -> Triplets:
    """Return the best triplets in the span of the orthonormal columns of `V` (n, k). Collective over comm.

    They come from the SVD of A V by TSQR, so for any V, U is orthonormal and A v = sigma u up to rounding.
    """
    factors = TSQR(slab.comm, slab.product(V))
    P, s, Qh = svd_on_first(slab.comm, factors.R)
    return Triplets(factors.apply(P), s, V @ Qh.conj().T)


def svd_on_first(comm: MPI.Comm, A: Array) -> tuple[Array, Array, Array]:
    """Return the economy-size SVD of a small `A`, bitwise equal on every rank. Collective over comm.

    Raises
    ------
    numpy.linalg.LinAlgError
        On rank 0, if it does not converge; the other ranks raise PeerFailedError.
    """
    found = None
    with Agreement(comm):
        if comm.rank == 0:
            found = tuple(np.linalg.svd(A, full_matrices=False))
    P, s, Qh = comm.bcast(found)
    return P, s, Qh


def residual(slab: TallMatrix, triplets: Triplets) -> float:
    """Return the largest norm of A^H u - sigma v over the triplets, relative to the largest sigma. Collective.

    For triplets from :func:`rayleigh_ritz` the other residual, A v - sigma u, is zero.
    """
    largest = float(triplets.s[0])
    difference = slab.transposed_product(triplets.U) - triplets.V * triplets.s
    norm = float(np.linalg.norm(difference, axis=0).max()) / largest if largest > 0 else 0.0
    return float(slab.comm.bcast(norm))
