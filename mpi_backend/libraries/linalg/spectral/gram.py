"""Leading singular triplets of a tall matrix from the eigenvectors of its Gram matrix A^H A.

It takes one pass over A at the speed of a matrix product, one n x n reduction and one eigenproblem, so for m >> n it is
by far the cheapest method. But the Gram matrix squares the condition number. With machine precision eps, the error of
an eigenvector leaves a residual ‖A^H u - sigma_k v‖ of about eps sigma_1 (sigma_1 / sigma_k), and values below
sqrt(eps) sigma_1 are lost completely. Therefore U is not computed as A V / sigma, which would lose twice as much
orthogonality, but by a Rayleigh-Ritz step with QR. The result is accepted only if the spectrum guarantees a small
residual, or if the residual was measured.
"""

from __future__ import annotations

import numpy as np

from alchemist_ray.mpi_backend.ali import TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import one_rank
from alchemist_ray.mpi_backend.libraries.linalg.slabs import RowSlab
from alchemist_ray.mpi_backend.libraries.linalg.spectral.triplets import Triplets, rayleigh_ritz, residual


def gram_svd(ctx: TaskContext, slab: RowSlab, k: int, tolerance: float) -> Triplets | None:
    """Return the leading `k` triplets, or None if this method does not reach `tolerance`. Collective over comm.

    Parameters
    ----------
    ctx : TaskContext
        Context of the task.
    slab : RowSlab
        The matrix, scaled so that its squares neither overflow nor underflow. Each rank holds an n x n Gram matrix.
    k : int
        Number of triplets.
    tolerance : float
        Bound for the residuals of both sides, relative to the largest singular value.
    """
    comm, n = slab.comm, slab.shape[1]
    G = slab.gram(ctx)
    found = one_rank.run(ctx, 9 * n**3, G.dtype, lambda: np.linalg.eigh(G)[1][:, : -k - 1 : -1])
    V = np.empty((n, k), slab.dtype)
    if found is not None:
        V[...] = found
    comm.Bcast(V)
    triplets = rayleigh_ritz(slab, V)
    eps = float(np.finfo(slab.dtype).eps)
    smallest, largest = float(triplets.s[-1]), float(triplets.s[0])
    if smallest <= 64 * np.sqrt(eps) * largest:
        return None
    guaranteed = n * eps * largest <= tolerance * smallest
    return triplets if guaranteed or residual(slab, triplets) <= tolerance else None
