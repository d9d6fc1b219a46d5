"""Tall matrices whose rows are dealt out, each row whole on one rank.

The methods for tall matrices (Gram matrix, TSQR, Lanczos bidiagonalisation) need nothing of a layout but that. A wide
matrix is the transpose of a tall one: where its columns are dealt, its blocks seen through ``.T`` are such a slab, and
no data moves.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext

Array = npt.NDArray[Any]

_PANEL = 4096  # rows of a slab that are multiplied at a time where sums are kept in double precision


@dataclass(frozen=True)
class Slab:
    """A tall m x n matrix, of which this rank has some rows.

    Attributes
    ----------
    comm : MPI.Comm
        The ranks that share the matrix.
    local : ndarray, shape (mloc, n)
        This rank's rows, C- or Fortran-ordered.
    layout : Layout
        Of the tall matrix: its rows are dealt, its columns are not.
    shape : (int, int)
        ``(m, n)`` with ``m >= n``.
    flipped : bool
        Whether the tall matrix is the transpose of the one that was given.
    """

    comm: MPI.Comm
    local: Array
    layout: Layout
    shape: tuple[int, int]
    flipped: bool

    def product(self, V: Array) -> Array:
        """Return this rank's rows of A V, for V of shape (n, k) that every rank holds. Local."""
        W: Array = self.local @ V
        return W

    def transposed_product(self, W: Array) -> Array:
        """Return A^T W on every rank, for this rank's rows of W, shape (mloc, k). Collective over comm."""
        Z = np.ascontiguousarray(self.local.T @ W)
        self.comm.Allreduce(MPI.IN_PLACE, Z)
        return Z

    def gram(self) -> npt.NDArray[np.float64]:
        """Return A^T A on every rank, summed in double precision. Collective over comm."""
        n = self.shape[1]
        G = np.zeros((n, n))
        if self.local.dtype == G.dtype:
            G += self.local.T @ self.local  # NumPy recognises this as a symmetric rank-k update: half the work
        else:
            for start in range(0, self.local.shape[0], _PANEL):
                panel = self.local[start : start + _PANEL]
                G += panel.T @ panel
        self.comm.Allreduce(MPI.IN_PLACE, G)
        return G

    def scaled(self, factor: float) -> Slab:
        """Return the slab of ``factor * A``, in new memory. Local."""
        return dataclasses.replace(self, local=self.local * self.local.dtype.type(factor))

    def tall_result(self, ctx: TaskContext, W: Array) -> DistMatrix:
        """Return W, of which this rank passes the rows that it has of A, or W^T if the slab is flipped. Local."""
        k = W.shape[1]
        layout = dataclasses.replace(self.layout, block=(self.layout.block[0], max(k, 1)))
        shape = (self.shape[0], k)
        result = ctx.empty(*((shape[::-1], W.dtype, layout.transposed()) if self.flipped else (shape, W.dtype, layout)))
        result.local[...] = W.T if self.flipped else W
        return result

    def small_result(self, ctx: TaskContext, V: Array) -> DistMatrix:
        """Return V^T, shape (k, n), of which every rank passes V; or V if the slab is flipped. Local."""
        return ctx.from_replicated(V, "VC_STAR") if self.flipped else ctx.from_replicated(V.T, "STAR_VC")


def slab_of(A: DistMatrix) -> Slab:
    """Return `A`, or its transpose if that is the tall one, as a slab. Collective over comm if data must move."""
    m, n = A.shape
    if m >= n:
        A = A if deals_rows(A.layout) else A.relayout("VC_STAR")
        return Slab(A.comm, A.local, A.layout, A.shape, flipped=False)
    A = A if deals_rows(A.layout.transposed()) else A.relayout("STAR_VC")
    return Slab(A.comm, A.local.T, A.layout.transposed(), (n, m), flipped=True)


def deals_rows(layout: Layout) -> bool:
    """Whether every rank holds some of the rows, each of them whole and no other rank's."""
    size = layout.grid.size
    rows, cols = layout.part((size, size), layout.grid.size - 1)
    return rows.stride == size and cols.stride == 1 and cols.size == size
