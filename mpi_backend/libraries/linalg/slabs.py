"""Tall matrices that are distributed by whole rows.

The methods for tall matrices (Gram matrix, TSQR, Lanczos bidiagonalisation) need only this property of a layout. A wide
matrix is the transpose of a tall one: if it is distributed by whole columns, its blocks seen through ``.T`` are such a
slab, and no data moves. A sparse matrix is always distributed by rows; if it is wide, its transpose is computed.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import checks, stopping
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

Array = npt.NDArray[Any]

_PANEL = 4096  # rows of a slab that are multiplied at a time if the sum has a higher precision than the slab


@dataclass(frozen=True)
class TallMatrix(ABC):
    """A tall m x n matrix; this rank holds some of its rows.

    Attributes
    ----------
    comm : MPI.Comm
        The ranks that share the matrix.
    layout : Layout
        Layout of the tall matrix, which distributes its rows and not its columns.
    shape : (int, int)
        ``(m, n)`` with ``m >= n``.
    flipped : bool
        Whether the tall matrix is the transpose of the original one.
    """

    comm: MPI.Comm
    layout: Layout
    shape: tuple[int, int]
    flipped: bool

    @property
    @abstractmethod
    def elements(self) -> Array:
        """The elements of this rank's rows, in any order; for a sparse matrix the stored ones."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.elements.dtype

    @property
    @abstractmethod
    def height(self) -> int:
        """Number of rows of this rank."""

    @abstractmethod
    def product(self, V: Array) -> Array:
        """Return this rank's rows of A V; every rank passes the same V of shape (n, k). Local."""

    @abstractmethod
    def contribution(self, W: Array) -> Array:
        """Return the contribution of this rank's rows to A^H W, shape (n, k), C-ordered. Local."""

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return the slab of ``factor * A``, in new memory. Collective over comm."""

    def transposed_product(self, W: Array) -> Array:
        """Return A^H W on every rank; each rank passes its rows of W, shape (mloc, k). Collective over comm."""
        Z = self.contribution(W)
        self.comm.Allreduce(MPI.IN_PLACE, Z)
        return Z

    def transposed_share(self, W: Array, heights: Array) -> Array:
        """Return this rank's rows of A^H W; rank r gets the next ``heights[r]`` rows. Collective over comm."""
        share = np.empty((int(heights[self.comm.rank]), W.shape[1]), W.dtype)
        self.comm.Reduce_scatter(self.contribution(W), share, heights * W.shape[1])
        return share

    def tall_result(self, ctx: TaskContext, W: Array) -> DistMatrix:
        """Return W as a matrix, or W^T if the slab is flipped; each rank passes its rows. Collective over comm."""
        k = W.shape[1]
        layout = dataclasses.replace(self.layout, block=(self.layout.block[0], max(k, 1)))
        shape = (self.shape[0], k)
        if self.flipped:
            shape, layout = shape[::-1], layout.transposed()
        result = checks.allocated(ctx, shape, W.dtype, layout)
        result.local[...] = W.T if self.flipped else W
        return result

    def small_result(self, ctx: TaskContext, V: Array) -> DistMatrix:
        """Return V^H, shape (k, n), or conj(V) if the slab is flipped; every rank passes the same V. Collective."""
        V = V.conj()
        return checks.replicated(ctx, *((V, "VC_STAR") if self.flipped else (V.T, "STAR_VC")))


@dataclass(frozen=True)
class RowSlab(TallMatrix):
    """A dense tall matrix.

    Attributes
    ----------
    local : ndarray, shape (mloc, n)
        This rank's rows, C- or Fortran-ordered.
    """

    local: Array

    @property
    def elements(self) -> Array:
        """The elements of this rank's rows."""
        return self.local.ravel(order="K")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.local.dtype

    @property
    def height(self) -> int:
        """Number of rows of this rank."""
        return len(self.local)

    def product(self, V: Array) -> Array:
        """Return this rank's rows of A V; every rank passes the same V of shape (n, k). Local."""
        W: Array = self.local @ V
        return W

    def contribution(self, W: Array) -> Array:
        """Return the contribution of this rank's rows to A^H W. Local."""
        return np.ascontiguousarray((self.local.T @ W.conj()).conj())  # conjugates the small arrays; no copy if real

    def gram(self, ctx: TaskContext) -> Array:
        """Return A^H A on every rank, summed in double precision. Collective over comm."""
        m, n = self.shape
        G = np.zeros((n, n), np.result_type(self.dtype, np.float64))
        for part in stopping.in_parts(ctx, m * n * n, self.dtype, self.local.shape[0]):
            rows = self.local[part]
            if self.dtype == np.float64:
                G += rows.T @ rows  # NumPy does half the work: it recognises a symmetric rank-k update
                continue
            for start in range(0, rows.shape[0], _PANEL):
                panel = rows[start : start + _PANEL]
                G += panel.conj().T @ panel
        self.comm.Allreduce(MPI.IN_PLACE, G)
        return G

    def scaled(self, factor: float) -> RowSlab:
        """Return the slab of ``factor * A``, in new memory. Collective over comm."""
        with Agreement(self.comm):
            return dataclasses.replace(self, local=self.local * self.local.real.dtype.type(factor))


@dataclass(frozen=True)
class SparseSlab(TallMatrix):
    """A sparse tall matrix.

    Attributes
    ----------
    matrix : SparseDistMatrix
        The tall matrix.
    """

    matrix: SparseDistMatrix

    @property
    def elements(self) -> Array:
        """The entries of this rank's rows."""
        return self.matrix.arrays.values

    @property
    def height(self) -> int:
        """Number of rows of this rank."""
        return self.matrix.rows.size

    def product(self, V: Array) -> Array:
        """Return this rank's rows of A V; every rank passes the same V of shape (n, k). Local."""
        W: Array = self.matrix.local @ V
        return W

    def contribution(self, W: Array) -> Array:
        """Return the contribution of this rank's rows to A^H W. Local."""
        Z: Array = (self.matrix.local_transposed @ W.conj()).conj()
        return Z

    def scaled(self, factor: float) -> SparseSlab:
        """Return the slab of ``factor * A``, in new memory. Collective over comm."""
        matrix = self.matrix.like()
        np.multiply(self.elements, self.elements.real.dtype.type(factor), out=matrix.arrays.values)
        return dataclasses.replace(self, matrix=matrix)


def slab_of(A: DistMatrix) -> RowSlab:
    """Return `A`, or its transpose if `A` is wide, as a slab. Collective over comm if data must move."""
    m, n = A.shape
    if m >= n:
        A = A if deals_rows(A.layout) else A.relayout("VC_STAR")
        return RowSlab(A.comm, A.layout, A.shape, flipped=False, local=A.local)
    A = A if deals_rows(A.layout.transposed()) else A.relayout("STAR_VC")
    return RowSlab(A.comm, A.layout.transposed(), (n, m), flipped=True, local=A.local.T)


def sparse_slab_of(A: SparseDistMatrix) -> SparseSlab:
    """Return `A`, or its transpose if `A` is wide, as a slab. Collective over comm if data must move."""
    flipped = A.shape[0] < A.shape[1]
    A = A.transposed() if flipped else A
    return SparseSlab(A.comm, A.layout, A.shape, flipped, A)


def deals_rows(layout: Layout) -> bool:
    """Whether the layout distributes whole rows over all ranks, each row to one rank."""
    size = layout.grid.size
    rows, cols = layout.part((size, size), layout.grid.size - 1)
    return rows.stride == size and cols.stride == 1 and cols.size == size
