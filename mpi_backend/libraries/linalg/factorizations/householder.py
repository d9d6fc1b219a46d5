"""Householder QR of a matrix that is distributed by small blocks of rows, with or without column pivoting.

Works by panels of columns. A tree (:mod:`.tsqr`) factors a panel, so the ranks exchange messages once per panel, not
once per column. The block reflector I - V T V^H is reconstructed from the orthonormal columns of the tree, and two
products with it update the columns to the right. V is stored below the diagonal, as in LAPACK.

For pivoting, each panel starts with a small sketch: a random matrix, with a few more rows than the panel has columns,
times the remaining columns. One rank factors the sketch with pivoting, and the first pivot columns form the panel.
Within the panel LAPACK pivots once more. So pivoting costs products, instead of messages and a pass over the matrix for
each column. The magnitudes on the diagonal of R decrease as in LAPACK, except for a small factor between panels.

Sources: G. Ballard, J. Demmel, L. Grigori, M. Jacquelin, N. Knight, H. D. Nguyen, *Reconstructing Householder vectors
from tall-skinny QR*, J. Parallel Distrib. Comput. 85 (2015), section 4; P.-G. Martinsson, G. Quintana-Ortí, N. Heavner,
R. van de Geijn, *Householder QR factorization with randomization for column pivoting*, SIAM J. Sci. Comput. 39 (2017),
C96; J. A. Duersch, M. Gu, *Randomized QR with column pivoting*, SIAM J. Sci. Comput. 39 (2017), C263.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.local_blas import solve_triangle, subtract_product

Array = npt.NDArray[Any]

WIDTH = 64
"""Columns of a panel, and rows of a block."""

_OVERSAMPLING = 10
"""Number of rows of a sketch beyond the number of columns of a panel."""


def row_layout(shape: tuple[int, int], size: int) -> Layout:
    """Return the layout that :class:`Householder` needs. Local."""
    return Layout.of("VC_STAR", shape, size, block=(WIDTH, max(1, shape[1])))


@dataclass
class Householder:
    """The QR factors of a matrix; created by :meth:`of`.

    Attributes
    ----------
    work : DistMatrix, shape (m, n)
        R in the upper triangle, the vectors V of the reflectors below it; in :func:`row_layout`.
    T : list of ndarray
        The triangle of each block reflector, on every rank.
    jpvt : ndarray of int64, shape (n,)
        For each column of Q R its column number in the matrix; on every rank.
    """

    work: DistMatrix
    T: list[Array] = field(default_factory=list)
    jpvt: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, ctx: TaskContext, work: DistMatrix, pivoting: bool) -> Householder:
        """Overwrite `work` with its factors. Collective over comm."""
        factors = cls(work, jpvt=np.arange(work.shape[1]))
        p = min(work.shape)
        for start, stop in factors._panels():
            if pivoting:
                factors._choose(start, stop)
            factors._eliminate(start, stop, pivoting)
            ctx.check_cancelled()
            ctx.progress(stop, p, "QR")
        return factors

    def apply(self, B: Array) -> None:
        """Overwrite this rank's rows of B, distributed like the matrix, with those of Q B. Collective over comm."""
        for (start, stop), T in reversed(list(zip(self._panels(), self.T, strict=True))):
            self._reflect(T, start, stop, B)

    def apply_adjoint(self, B: Array) -> None:
        """Overwrite this rank's rows of B, distributed like the matrix, with those of Q^H B. Collective over comm."""
        for (start, stop), T in zip(self._panels(), self.T, strict=True):
            self._reflect(T.conj().T, start, stop, B)

    def overwrite_with_q(self, Q: DistMatrix) -> None:
        """Overwrite `Q`, in the layout of the matrix, with the first columns of Q. Collective over comm."""
        Q.local[...] = np.equal.outer(Q.rows.indices(), np.arange(Q.shape[1]))
        for (start, stop), T in reversed(list(zip(self._panels(), self.T, strict=True))):
            self._reflect(T, start, stop, Q.local[:, start:])  # earlier columns are still those of the identity

    def _panels(self) -> Iterator[tuple[int, int]]:
        p = min(self.work.shape)
        return ((start, min(start + WIDTH, p)) for start in range(0, p, WIDTH))

    def _first(self, i: int) -> int:
        """Return the number of this rank's rows before row `i`."""
        return self.work.rows.local_range(0, i)[1]

    def _holds(self, i: int) -> bool:
        return bool(i // WIDTH % self.work.comm.size == self.work.comm.rank)

    # --- one panel ----------------------------------------------------------------------------------------------------

    def _choose(self, start: int, stop: int) -> None:
        """Move the pivot columns of a sketch to the front of the remaining columns. Collective over comm."""
        work, comm = self.work, self.work.comm
        rest = work.local[self._first(start) :, start:]
        sketch = _random(start, comm.rank, (stop - start + _OVERSAMPLING, len(rest)), rest.dtype) @ rest
        total = np.empty_like(sketch) if comm.rank == 0 else None
        comm.Reduce(sketch / work.shape[0], total, root=0)
        chosen = np.empty(stop - start, np.int64)
        if total is not None:
            chosen[...] = _pivoted_qr(total, "r")[-1][: chosen.size]
        comm.Bcast(chosen)
        self._to_front(start, chosen + start)

    def _to_front(self, start: int, chosen: npt.NDArray[np.int64]) -> None:
        """Exchange columns so that the `chosen` ones, in their order, begin at `start`. Local."""
        front = np.arange(start, start + chosen.size)
        away = np.setdiff1d(front, chosen)  # they move to the old places of the chosen ones
        left = np.setdiff1d(chosen, front)
        self._reorder(np.concatenate([front, left]), np.concatenate([chosen, away]))

    def _reorder(self, to: npt.NDArray[np.int64], source: npt.NDArray[np.int64]) -> None:
        """Overwrite the columns `to` of the matrix with the columns `source`. Local."""
        self.work.local[:, to] = self.work.local[:, source]
        self.jpvt[to] = self.jpvt[source]

    def _eliminate(self, start: int, stop: int, pivoting: bool) -> None:
        """Factor columns ``start .. stop-1`` and update the later columns. Collective over comm."""
        local, first = self.work.local, self._first(start)
        tree = TSQR(self.work.comm, local[first:, start:stop])
        R, small = tree.R, np.eye(stop - start, dtype=local.dtype)
        if pivoting:
            small, R, order = self._pivoted(R)
            columns = np.arange(start, stop)
            self._reorder(columns, columns[order])
        V = tree.apply(small)
        signs, T = self._reconstruct(start, V)
        self.T.append(T)
        local[first:, start:stop] = V
        if self._holds(start):
            upper = np.triu_indices(stop - start)
            local[first : first + stop - start, start:stop][upper] = (signs[:, np.newaxis] * R)[upper]
        self._reflect(T.conj().T, start, stop, local[:, stop:])

    def _pivoted(self, R: Array) -> tuple[Array, Array, npt.NDArray[np.int64]]:
        """Return the pivoted QR of a small triangle, the same on all ranks. Collective over comm."""
        comm, width = self.work.comm, R.shape[1]
        Q, R1, order = np.empty((width, width), R.dtype), np.empty((width, width), R.dtype), np.empty(width, np.int64)
        if comm.rank == 0:
            Q[...], R1[...], order[...] = _pivoted_qr(R, "full")
        for part in (Q, R1, order):
            comm.Bcast(part)
        return Q, R1, order

    def _reconstruct(self, start: int, Q: Array) -> tuple[Array, Array]:
        """Overwrite orthonormal columns Q with the V of I - V T V^H, whose first columns are Q S^H. Collective.

        Returns
        -------
        S : ndarray
            A diagonal; its elements have magnitude 1.
        T : ndarray
            The triangle of the reflector.
        """
        comm, width = self.work.comm, Q.shape[1]
        packed = np.empty((2 * width + 1, width), Q.dtype)
        if self._holds(start):
            packed[:width] = Q[:width]
            packed[2 * width] = _signed_lu(packed[:width])
        comm.Bcast(packed, start // WIDTH % comm.size)
        LU, S = packed[:width], packed[2 * width]
        V1 = np.tril(LU, -1) + np.eye(width, dtype=Q.dtype)
        below = Q[width:] if self._holds(start) else Q
        solve_triangle(LU.T, below.T, lower=True)  # X U = Q
        if self._holds(start):
            Q[:width] = V1
        T = -np.triu(LU) * S.conj()
        solve_triangle(V1.conj(), T.T, lower=True, unit=True)  # X V1^H = T
        return S, T

    def _reflect(self, T: Array, start: int, stop: int, B: Array) -> None:
        """Overwrite B with B - V T V^H B, with the V of columns ``start .. stop-1``. Collective over comm."""
        if B.shape[1] == 0:
            return
        first, width = self._first(start), stop - start
        V = self.work.local[first:, start:stop]
        if self._holds(start):
            V = V.copy()
            V[:width] = np.tril(V[:width], -1) + np.eye(width, dtype=V.dtype)
        active = B[first:]
        W = np.ascontiguousarray(V.conj().T @ active)
        self.work.comm.Allreduce(MPI.IN_PLACE, W)
        subtract_product(active, V, T @ W)


def _signed_lu(A: Array) -> Array:
    """Overwrite `A` with L and U of A - S without pivoting, for a suitable diagonal S of magnitude 1; return S."""
    S = np.empty(len(A), A.dtype)
    for i in range(len(A)):
        magnitude = abs(A[i, i])
        S[i] = -A[i, i] / magnitude if magnitude else -1
        A[i, i] -= S[i]  # now its magnitude is at least 1
        A[i + 1 :, i] /= A[i, i]
        A[i + 1 :, i + 1 :] -= np.multiply.outer(A[i + 1 :, i], A[i, i + 1 :])
    return S


def _pivoted_qr(A: Array, mode: str) -> tuple[Array, ...]:
    """Return LAPACK's pivoted QR of a small matrix. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    factors: tuple[Array, ...] = scipy.linalg.qr(A, mode=mode, pivoting=True, check_finite=False)
    return factors


def _random(start: int, rank: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Return normally distributed numbers that depend only on `start` and `rank`. Local."""
    rng = np.random.default_rng([start, rank])
    numbers: Array = rng.standard_normal(shape)
    if dtype.kind == "c":
        numbers = numbers + 1j * rng.standard_normal(shape)
    return numbers.astype(dtype)
