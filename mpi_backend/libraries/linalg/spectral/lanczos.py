"""Leading singular triplets of a large matrix: thick-restart block Lanczos bidiagonalisation.

Two orthonormal bases grow by a block at a time, U for the long side and V for the short one, such that

    A V = U B,        A^H U = V B^H + V' F e^T

where V' is the next block of V and e picks the last block of U. The SVD of the small B gives the Ritz triplets. By the
first equation their residuals A v - sigma u are zero; the second gives the residuals A^H u - sigma v without another
product. When the bases are full, they are compressed to the leading Ritz vectors and grow again from V'.

Both bases are fully reorthogonalised. The part of a new block that the recurrence predicts is subtracted first; after
that one pass over the basis is usually enough. If the block or its remainder is nearly dependent, more passes follow,
by TSQR.

The width of the blocks depends on their cost (:class:`LanczosPlan`). The product of a dense matrix with one vector runs
at the speed of memory, and with thirty-two vectors at the speed of the cores, so for dense matrices blocks are wide. A
sparse matrix gains nothing from wide blocks, and narrow blocks need far fewer vectors in total. But a start with b
vectors finds at most b copies of a multiple singular value. So if narrow blocks find b equal values, other than the
last ones, the result is not trusted (:func:`trustworthy`). It is computed again with wide blocks, which have more
vectors than wanted triplets.

The rows of U are distributed like the rows of the slab; those of V are divided evenly over the ranks.

Sources: G. Golub, F. Luk, M. Overton, ACM TOMS 7 (1981), 149 (the block method); J. Baglama, L. Reichel, SIAM J. Sci.
Comput. 27 (2005), 19, section 3 (thick restart).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.slabs import TallMatrix
from alchemist_ray.mpi_backend.libraries.linalg.spectral.triplets import Triplets, svd_on_first

Array = npt.NDArray[Any]
ReportIteration = Callable[[int, float], None]

_BLOCKS_KEPT = 12  # wide blocks: the bases hold k + this many before a restart
_CHECK_EVERY = 3  # wide blocks between two checks of the residuals
_NARROW = 2  # smallest width that can detect a multiple singular value
_FEW = 4  # up to this many vectors, one product for each is faster than one for all
_DEPENDENT = 10.0  # above this condition number of a block, one pass with Cholesky factors is not enough
_INDEPENDENT = 0.5  # a unit vector that keeps this length needs no second orthogonalisation
_ROUNDING = 100.0  # remainders below this times the precision are rounding errors
_PASSES = 10


def block_size(k: int) -> int:
    """Return the number of vectors in a wide block for `k` triplets."""
    return max(16, k + max(8, k // 4))


@dataclass(frozen=True)
class LanczosPlan:
    """The width of the blocks, and the number of vectors kept.

    Attributes
    ----------
    k : int
        Number of wanted triplets.
    block : int
        Vectors of a block.
    kept : int
        Ritz vectors that a restart keeps.
    capacity : int
        Largest number of vectors of a basis.
    check_every : int
        Blocks between two checks of the residuals, which are also checked before each restart.
    """

    k: int
    block: int
    kept: int
    capacity: int
    check_every: int

    @classmethod
    def wide(cls, k: int, n: int) -> LanczosPlan | None:
        """Return the plan for `k` triplets of a dense matrix with short side `n`; None if `n` is too small."""
        b = block_size(k)
        capacity = min(k + _BLOCKS_KEPT * b, n - b)
        return cls(k, b, k + b, capacity, _CHECK_EVERY) if k + 5 * b <= capacity else None

    @classmethod
    def narrow(cls, k: int, n: int) -> LanczosPlan | None:
        """Return the plan for `k` triplets of a sparse matrix with short side `n`; None if `n` is too small."""
        kept = k + max(8, k // 2)
        kept += kept % _NARROW
        capacity = 2 * kept
        return cls(k, _NARROW, kept, capacity, capacity) if capacity + _NARROW <= n else None


class Basis:
    """Orthonormal columns; this rank holds some of their rows.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the columns.
    rows, capacity : int
        Number of this rank's rows, and largest number of columns.
    rng : numpy.random.Generator
        This rank's generator of new directions, for blocks that add none.
    """

    def __init__(
        self, comm: MPI.Comm, rows: int, capacity: int, dtype: npt.DTypeLike, rng: np.random.Generator
    ) -> None:
        self._comm = comm
        self._rng = rng
        # In Fortran order the leading columns are contiguous.
        self._columns = np.empty((rows, capacity), dtype, order="F")
        self.size = 0

    @property
    def columns(self) -> Array:
        """The present columns: the rows on this rank."""
        return self._columns[:, : self.size]

    def append(self, block: Array) -> None:
        """Append orthonormal columns from :meth:`orthonormalise`. Local."""
        self._columns[:, self.size : self.size + block.shape[1]] = block
        self.size += block.shape[1]

    def compress(self, rotation: Array) -> None:
        """Replace the columns by ``columns @ rotation``. Local."""
        self._columns[:, : rotation.shape[1]] = self.columns @ rotation
        self.size = rotation.shape[1]

    def orthonormalise(self, W: Array, scale: float = 0.0) -> tuple[Array, Array, Array]:
        """Return Q, C, R with ``W = columns C + Q R`` and Q orthonormal, also to the columns. Collective over comm.

        A remainder of W below the precision of numbers of size `scale` counts as rounding. Directions without a
        remainder are replaced by random ones and have zeros in R, so Q has full rank for any W.
        """
        C, G = self._products(W)
        rounding = _ROUNDING * float(np.finfo(W.dtype).eps) * max(scale, float(np.sqrt(np.diag(G).real.max())))
        factors = self._factors(C, G, rounding)
        W = W - _times(self.columns, C)
        if factors is not None:
            R, inverse = factors
            return _times(W, inverse), C, R
        return self._orthonormalised_again(W, C, rounding)

    def _products(self, W: Array) -> tuple[Array, Array]:
        """Return ``columns^H W`` and ``W^H W``. Collective over comm."""
        products = np.concatenate([_adjoint_times(self.columns, W), _adjoint_times(W, W)])
        self._comm.Allreduce(MPI.IN_PLACE, products)
        return products[: self.size], products[self.size :]

    def _factors(self, C: Array, G: Array, rounding: float) -> tuple[Array, Array] | None:
        """Return R and its inverse such that ``(W - columns C) inverse`` is orthonormal. Collective over comm.

        Uses a Cholesky factorisation, which squares the condition number. Returns None unless the columns of W are
        larger than `rounding` and well independent of each other and of the basis. Rank 0 decides.
        """
        b, norms = len(G), np.sqrt(np.diag(G).real)
        factors = np.full((2 * b, b), np.nan, G.dtype)
        if self._comm.rank == 0 and norms.min() > rounding:
            with contextlib.suppress(np.linalg.LinAlgError):
                R = np.linalg.cholesky(G - C.conj().T @ C).conj().T
                inverse = np.linalg.inv(R)
                if np.linalg.norm(norms[:, np.newaxis] * inverse, 2) <= _DEPENDENT:
                    factors[:b], factors[b:] = R, inverse
        self._comm.Bcast(factors)
        return None if np.isnan(factors[0, 0]) else (factors[:b], factors[b:])

    def _orthonormalised_again(self, W: Array, C: Array, rounding: float) -> tuple[Array, Array, Array]:
        """Return Q, C, R for W from which ``columns C`` has been subtracted once. Collective over comm."""
        R = np.eye(W.shape[1], dtype=W.dtype)
        for count in range(_PASSES):
            factors = TSQR(self._comm, W)
            W, step = factors.q(), factors.R
            R = step @ R
            lost = np.abs(np.diag(step)) < _INDEPENDENT
            if count and not lost.any():
                break
            if count:
                empty = np.flatnonzero(lost & (np.abs(R).max(axis=1) <= rounding))
                W[:, empty] = normal(self._rng, (W.shape[0], empty.size), W.dtype)
                R[empty] = 0  # these random directions are not part of W
            projection, _ = self._products(W)
            W -= _times(self.columns, projection)
            C = C + projection @ R
        return W, C, R


def normal(rng: np.random.Generator, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Return standard normal random numbers of `dtype`. Local."""
    if dtype.kind != "c":
        return rng.standard_normal(shape).astype(dtype)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


def _adjoint_times(A: Array, W: Array) -> Array:
    """Return A^H W, for narrow W. Local."""
    return _times(A.T, W.conj()).conj()


def _times(A: Array, W: Array) -> Array:
    """Return A W. Local."""
    product: Array
    if W.shape[1] > _FEW:
        product = A @ W
        return product
    product, columns = np.empty((A.shape[0], W.shape[1]), W.dtype, order="F"), np.asfortranarray(W)
    for j in range(W.shape[1]):
        np.matmul(A, columns[:, j], out=product[:, j])
    return product


class Bidiagonalisation:
    """The two bases, and the small matrix B between them.

    Parameters
    ----------
    slab : TallMatrix
        The matrix.
    plan : LanczosPlan
        The plan for the short side of the matrix.
    seed : int
        Seed of the random start.
    """

    def __init__(self, slab: TallMatrix, plan: LanczosPlan, seed: int) -> None:
        comm, n, dtype = slab.comm, slab.shape[1], slab.dtype
        self._slab, self._k, self._plan = slab, plan.k, plan
        cuts = [n * rank // comm.size for rank in range(comm.size + 1)]
        self._heights = np.diff(cuts)
        mine = int(self._heights[comm.rank])
        rng = np.random.default_rng([seed, comm.rank])
        self._U = Basis(comm, slab.height, plan.capacity, dtype, rng)
        self._V = Basis(comm, mine, plan.capacity, dtype, rng)
        self._B = np.zeros((0, 0), dtype)
        self._next, _, _ = self._V.orthonormalise(normal(rng, (mine, plan.block), dtype))
        self._coupling = np.zeros((0, plan.block), dtype)  # U^H A V', given by the recurrence

    @property
    def full(self) -> bool:
        """Whether the bases must be compressed before they grow."""
        return self._U.size + self._plan.block > self._plan.capacity

    def grow(self) -> None:
        """Extend both bases by a block. Collective over comm."""
        block, known = self._next, self._coupling
        W = self._slab.product(self._gathered(block))
        touched = int(np.argmax(known.any(axis=1))) if known.any() else len(known)
        W -= _times(self._U.columns[:, touched:], known[touched:])
        scale = float(np.linalg.norm(self._B, axis=0).max(initial=0.0))
        Q, C, R = self._U.orthonormalise(W, scale)
        p, b = C.shape
        B = np.zeros((p + b, p + b), R.dtype)
        B[:p, :p], B[:p, p:], B[p:, p:] = self._B, known + C, R
        self._B = B
        self._U.append(Q)
        self._V.append(block)
        Z = self._slab.transposed_share(Q, self._heights)
        Z -= _times(block, R.conj().T)
        self._next, _, F = self._V.orthonormalise(Z, max(scale, float(np.linalg.norm(R, axis=1).max())))
        self._coupling = np.zeros((p + b, b), F.dtype)
        self._coupling[p:] = F.conj().T

    def ritz(self) -> tuple[Array, Array, Array, float]:
        """Return the SVD of B, bitwise equal on every rank, and the largest residual of the leading k triplets.

        The residual is relative to the largest singular value. Collective over comm.
        """
        comm = self._slab.comm
        P, s, Qh = svd_on_first(comm, self._B)
        coupling = self._coupling.conj().T @ P[:, : self._k]
        residual = float(np.linalg.norm(coupling, axis=0).max())
        residual = comm.bcast(residual / float(s[0]) if s[0] > 0 else 0.0)
        return P, s, Qh.conj().T, residual

    def compress(self, P: Array, s: Array, Q: Array) -> None:
        """Keep only the leading Ritz vectors. Local."""
        kept = self._plan.kept
        self._U.compress(P[:, :kept])
        self._V.compress(Q[:, :kept])
        self._B = np.diag(s[:kept]).astype(self._B.dtype)
        self._coupling = P[:, :kept].conj().T @ self._coupling

    def leading(self, P: Array, s: Array, Q: Array) -> Triplets:
        """Return the leading k Ritz triplets. Collective over comm."""
        k = self._k
        return Triplets(self._U.columns @ P[:, :k], s[:k], self._gathered(self._V.columns @ Q[:, :k]))

    def _gathered(self, block: Array) -> Array:
        """Return whole columns on every rank; each rank passes its share of the short side's rows."""
        comm, width = self._slab.comm, block.shape[1]
        whole = np.empty((int(self._heights.sum()), width), block.dtype)
        counts = self._heights * width
        comm.Allgatherv(np.ascontiguousarray(block), [whole, counts])
        return whole


def lanczos_svd(
    slab: TallMatrix, plan: LanczosPlan, tolerance: float, seed: int, vectors: int, progress: ReportIteration
) -> Triplets | None:
    """Return the leading triplets of a slab, or None if they do not converge. Collective over comm.

    Parameters
    ----------
    slab : TallMatrix
        The matrix.
    plan : LanczosPlan
        The number of triplets and the widths.
    tolerance : float
        Bound for the residuals of both sides, relative to the largest singular value.
    seed : int
        Seed of the random start.
    vectors : int
        Largest number of vectors to add to a basis.
    progress : callable
        Called with the number of vectors and the residual at each check.
    """
    bases = Bidiagonalisation(slab, plan, seed)
    blocks = max(1, vectors // plan.block)
    for count in range(1, blocks + 1):
        bases.grow()
        if not (bases.full or count % plan.check_every == 0 or count == blocks):
            continue
        P, s, Q, residual = bases.ritz()
        progress(count * plan.block, residual)
        if s.size >= plan.k and residual <= tolerance:
            return bases.leading(P, s, Q)
        if bases.full:
            bases.compress(P, s, Q)
    return None


def trustworthy(s: Array, block: int, tolerance: float) -> bool:
    """Whether `s`, found to `tolerance` with blocks of `block` vectors, has all copies of multiple values. Local.

    Values that differ by more than the tolerance count as different. Copies of the smallest value may be missing,
    because another copy would only replace it.
    """
    gap = 2 * tolerance * s[0]
    above = s[s > s[-1] + gap]
    return not np.any(above[block - 1 :] >= above[: len(above) - block + 1] - gap)
