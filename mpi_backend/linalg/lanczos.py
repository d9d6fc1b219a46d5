"""Leading singular triplets of a large matrix: thick-restart block Lanczos bidiagonalisation.

Two orthonormal bases grow by a block at a time, U for the long side and V for the short one, such that

    A V = U B,        A^T U = V B^T + V' F e^T

where V' is the next block of V and e picks the last block of U. The SVD of the small B gives the Ritz triplets; the
first equation makes their residuals A v - sigma u vanish, the second shows those of A^T u - sigma v with no further
product. When the bases are full they are compressed to the leading Ritz vectors and grow again from V'.

Blocks, since a product with one vector runs at the speed of memory, with thirty-two at the speed of the cores; and
since a start of more vectors than triplets are wanted does not miss copies of a multiple singular value. Both bases
are kept orthogonal in full, against which the products are still the larger part of the work.

The rows of U lie where the rows of the slab are; those of V are cut evenly over the ranks.

Sources: G. Golub, F. Luk, M. Overton, ACM TOMS 7 (1981), 149 (the block method); J. Baglama, L. Reichel, SIAM J. Sci.
Comput. 27 (2005), 19, section 3 (thick restart).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.linalg.slabs import Slab
from alchemist_ray.mpi_backend.linalg.triplets import Triplets
from alchemist_ray.mpi_backend.linalg.tsqr import TSQR

Array = npt.NDArray[Any]
Progress = Callable[[int, float], None]

_BLOCKS_KEPT = 12  # the bases hold k + this many blocks before a restart
_CHECK_EVERY = 3  # blocks between two looks at the residuals
_INDEPENDENT = 0.5  # what is left of a unit vector that a second orthogonalisation should not change
_PASSES = 8


def block_size(k: int) -> int:
    """Return how many vectors are iterated at once to find `k` triplets."""
    return max(16, k + max(8, k // 4))


def fits(shape: tuple[int, int], k: int) -> bool:
    """Whether the short side of `shape` leaves room for bases that find `k` triplets."""
    return k + 6 * block_size(k) <= min(shape)


class Basis:
    """Orthonormal columns, of which this rank has some rows.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the columns.
    rows, capacity : int
        Rows of this rank, and columns there is room for.
    rng : numpy.random.Generator
        Gives new directions where a block adds none; this rank's own.
    """

    def __init__(
        self, comm: MPI.Comm, rows: int, capacity: int, dtype: npt.DTypeLike, rng: np.random.Generator
    ) -> None:
        self._comm = comm
        self._rng = rng
        # Fortran order: a leading part of the columns is contiguous
        self._columns = np.empty((rows, capacity), dtype, order="F")
        self.size = 0

    @property
    def columns(self) -> Array:
        """The columns so far: the rows of them that this rank has."""
        return self._columns[:, : self.size]

    def append(self, block: Array) -> None:
        """Add orthonormal columns that :meth:`orthonormalise` made. Local."""
        self._columns[:, self.size : self.size + block.shape[1]] = block
        self.size += block.shape[1]

    def compress(self, rotation: Array) -> None:
        """Replace the columns by ``columns @ rotation``. Local."""
        self._columns[:, : rotation.shape[1]] = self.columns @ rotation
        self.size = rotation.shape[1]

    def orthonormalise(self, W: Array) -> tuple[Array, Array, Array]:
        """Return Q, C, R with ``W = columns C + Q R`` and Q orthonormal, also to the columns. Collective over comm.

        Where W adds nothing new, Q gets random directions and R zeros, so Q has full rank for any W.
        """
        C = np.zeros((self.size, W.shape[1]), W.dtype)
        R = np.eye(W.shape[1], dtype=W.dtype)
        for count in range(_PASSES):
            projection = self._inner(W)
            factors = TSQR(self._comm, W - self.columns @ projection)
            W, step = factors.q(), factors.R
            C += projection @ R
            R = step @ R
            lost = np.flatnonzero(np.abs(np.diag(step)) < _INDEPENDENT)
            if count and not lost.size:
                break
            if count:
                W[:, lost] = self._rng.standard_normal((W.shape[0], lost.size))
                R[lost] = 0  # whatever the next pass does to these directions, they are no part of W
        return W, C, R

    def _inner(self, W: Array) -> Array:
        projection = np.ascontiguousarray(self.columns.T @ W)
        self._comm.Allreduce(MPI.IN_PLACE, projection)
        return projection


class Bidiagonalisation:
    """The two bases, and the small matrix B between them.

    Parameters
    ----------
    slab : Slab
        The matrix.
    k : int
        Number of triplets wanted; :func:`fits` must hold.
    seed : int
        Of the random start.
    """

    def __init__(self, slab: Slab, k: int, seed: int) -> None:
        comm, (mloc, n) = slab.comm, slab.local.shape
        dtype = slab.local.dtype
        self._slab, self._k, self._b = slab, k, block_size(k)
        capacity = min(k + _BLOCKS_KEPT * self._b, n - self._b)
        self._limit = capacity - self._b  # what the bases may hold and still grow by a block
        cuts = [n * rank // comm.size for rank in range(comm.size + 1)]
        self._heights = np.diff(cuts)
        self._mine = slice(cuts[comm.rank], cuts[comm.rank + 1])
        rng = np.random.default_rng([seed, comm.rank])
        self._U = Basis(comm, mloc, capacity, dtype, rng)
        self._V = Basis(comm, int(self._heights[comm.rank]), capacity, dtype, rng)
        self._B = np.zeros((0, 0), dtype)
        start = rng.standard_normal((int(self._heights[comm.rank]), self._b)).astype(dtype)
        self._next, _, self._F = self._V.orthonormalise(start)

    @property
    def full(self) -> bool:
        """Whether the bases must be compressed before they grow."""
        return bool(self._U.size > self._limit)

    def grow(self) -> None:
        """Extend both bases by a block. Collective over comm."""
        block = self._next
        W = self._slab.product(self._gathered(block))
        Q, C, R = self._U.orthonormalise(W)
        p, b = C.shape
        B = np.zeros((p + b, p + b), R.dtype)
        B[:p, :p], B[:p, p:], B[p:, p:] = self._B, C, R
        self._B = B
        self._U.append(Q)
        self._V.append(block)
        Z = self._slab.transposed_product(Q)[self._mine]
        self._next, _, self._F = self._V.orthonormalise(Z)

    def ritz(self) -> tuple[Array, Array, Array, float]:
        """Return the SVD of B, bitwise equal on every rank, and the largest residual of the leading k triplets.

        The residual is relative to the largest singular value. Collective over comm.
        """
        comm = self._slab.comm
        P, s, Qt = comm.bcast(np.linalg.svd(self._B) if comm.rank == 0 else None)
        coupling = self._F @ P[-self._b :, : self._k]
        residual = float(np.linalg.norm(coupling, axis=0).max())
        residual = comm.bcast(residual / float(s[0]) if s[0] > 0 else 0.0)
        return P, s, Qt.T, residual

    def compress(self, P: Array, s: Array, Q: Array) -> None:
        """Keep the leading Ritz vectors only. Local."""
        kept = self._k + self._b
        self._U.compress(P[:, :kept])
        self._V.compress(Q[:, :kept])
        self._B = np.diag(s[:kept])

    def leading(self, P: Array, s: Array, Q: Array) -> Triplets:
        """Return the leading k Ritz triplets. Collective over comm."""
        k = self._k
        return Triplets(self._U.columns @ P[:, :k], s[:k], self._gathered(self._V.columns @ Q[:, :k]))

    def _gathered(self, block: Array) -> Array:
        """Return on every rank the whole of columns of which each has its cut of the short side's rows."""
        comm, width = self._slab.comm, block.shape[1]
        whole = np.empty((int(self._heights.sum()), width), block.dtype)
        counts = self._heights * width
        comm.Allgatherv(np.ascontiguousarray(block), [whole, counts])
        return whole


def lanczos_svd(
    slab: Slab, k: int, tolerance: float, seed: int, max_iterations: int, progress: Progress
) -> Triplets | None:
    """Return the leading `k` triplets of a slab, or None if they do not converge. Collective over comm.

    Parameters
    ----------
    slab : Slab
        The matrix, for which :func:`fits` holds.
    k : int
        Number of triplets.
    tolerance : float
        Residuals of both sides must fall to this times the largest singular value.
    seed : int
        Of the random start.
    max_iterations : int
        Blocks that may be added.
    progress : callable
        Called with the number of blocks and the residual at each look at it.
    """
    bases = Bidiagonalisation(slab, k, seed)
    for count in range(1, max_iterations + 1):
        bases.grow()
        if not (bases.full or count % _CHECK_EVERY == 0 or count == max_iterations):
            continue
        P, s, Q, residual = bases.ritz()
        progress(count, residual)
        if s.size >= k and residual <= tolerance:
            return bases.leading(P, s, Q)
        if bases.full:
            bases.compress(P, s, Q)
    return None
