"""Leading singular triplets of a large matrix: thick-restart block Lanczos bidiagonalisation.

Two orthonormal bases grow by a block at a time, U for the long side and V for the short one, such that

    A V = U B,        A^H U = V B^H + V' F e^T

where V' is the next block of V and e picks the last block of U. The SVD of the small B gives the Ritz triplets; the
first equation makes their residuals A v - sigma u vanish, the second shows those of A^H u - sigma v with no further
product. When the bases are full they are compressed to the leading Ritz vectors and grow again from V'.

Both bases are kept orthogonal in full. What the recurrence says of a new block is subtracted first; then one pass over
the basis is mostly enough, and where the block or what is left of it is near to dependent, more follow, by TSQR.

The width of the blocks is chosen by cost (:class:`LanczosPlan`). A product of a dense matrix with one vector runs at
the speed of memory, with thirty-two at the speed of the cores, so there blocks are wide. A sparse matrix gains nothing
by that, and narrow blocks need far fewer vectors in all. But a start of b vectors finds at most b copies of a multiple
singular value. So where b were found that are equal, other than the last ones wanted, the narrow blocks are not
believed (:func:`trustworthy`), and wide ones are taken, which have more vectors than triplets are wanted.

The rows of U lie where the rows of the slab are; those of V are cut evenly over the ranks.

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
_CHECK_EVERY = 3  # wide blocks between two looks at the residuals
_NARROW = 2  # the least that can tell a multiple singular value
_FEW = 4  # vectors up to which a product with each of them is faster than with all
_DEPENDENT = 10.0  # condition number of a block from which on one pass, by Cholesky factors, is not enough
_INDEPENDENT = 0.5  # what is left of a unit vector that a second orthogonalisation should not change
_ROUNDING = 100.0  # times the precision: what is left of a vector in which there was nothing new
_PASSES = 10


def block_size(k: int) -> int:
    """Return how many vectors a wide block has when `k` triplets are wanted."""
    return max(16, k + max(8, k // 4))


@dataclass(frozen=True)
class LanczosPlan:
    """How wide the blocks are, and how many vectors are kept.

    Attributes
    ----------
    k : int
        Number of triplets wanted.
    block : int
        Vectors of a block.
    kept : int
        Ritz vectors that a restart keeps.
    capacity : int
        Vectors that a basis has room for.
    check_every : int
        Blocks between two looks at the residuals, which are looked at before each restart anyway.
    """

    k: int
    block: int
    kept: int
    capacity: int
    check_every: int

    @classmethod
    def wide(cls, k: int, n: int) -> LanczosPlan | None:
        """Return the plan for `k` triplets of a dense matrix with short side `n`; None if that has no room for it."""
        b = block_size(k)
        capacity = min(k + _BLOCKS_KEPT * b, n - b)
        return cls(k, b, k + b, capacity, _CHECK_EVERY) if k + 5 * b <= capacity else None

    @classmethod
    def narrow(cls, k: int, n: int) -> LanczosPlan | None:
        """Return the plan for `k` triplets of a sparse matrix with short side `n`; None if that has no room for it."""
        kept = k + max(8, k // 2)
        kept += kept % _NARROW
        capacity = 2 * kept
        return cls(k, _NARROW, kept, capacity, capacity) if capacity + _NARROW <= n else None


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

    def orthonormalise(self, W: Array, scale: float = 0.0) -> tuple[Array, Array, Array]:
        """Return Q, C, R with ``W = columns C + Q R`` and Q orthonormal, also to the columns. Collective over comm.

        What is left of W is taken for rounding where it is below the precision of numbers of size `scale`. Directions
        with nothing left are random, and have zeros in R, so Q has full rank for any W.
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

        By a Cholesky factorisation, which squares the condition number; None unless the columns of W are more than
        `rounding` and well independent of each other and of the basis. Rank 0 decides.
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
                R[empty] = 0  # whatever the next pass does to these directions, they are no part of W
            projection, _ = self._products(W)
            W -= _times(self.columns, projection)
            C = C + projection @ R
        return W, C, R


def normal(rng: np.random.Generator, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Return numbers from the standard normal distribution of `dtype`. Local."""
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
        The widths, for the short side of the matrix.
    seed : int
        Of the random start.
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
        self._coupling = np.zeros((0, plan.block), dtype)  # U^H A V', which the recurrence knows

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
        """Keep the leading Ritz vectors only. Local."""
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
        """Return on every rank the whole of columns of which each has its cut of the short side's rows."""
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
        How many triplets, and how.
    tolerance : float
        Residuals of both sides must fall to this times the largest singular value.
    seed : int
        Of the random start.
    vectors : int
        Vectors that may be added to a basis.
    progress : callable
        Called with the number of vectors and the residual at each look at it.
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
    """Whether no copy of a multiple singular value can be missing among `s`, found to `tolerance` from `block` vectors.

    Residuals below the tolerance tell apart what differs by more than that. Copies of the smallest value found may be
    missing, since they would only replace each other. Local.
    """
    gap = 2 * tolerance * s[0]
    above = s[s > s[-1] + gap]
    return not np.any(above[block - 1 :] >= above[: len(above) - block + 1] - gap)
