"""Tall matrices whose rows are dealt out, each row whole on one rank.

The methods for tall matrices (Gram matrix, TSQR, Lanczos bidiagonalisation) need nothing of a layout but that. A wide
matrix is the transpose of a tall one: where its columns are dealt, its blocks seen through ``.T`` are such a slab, and
no data moves. A sparse matrix is always dealt by rows; of a wide one the transpose is made.
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

_PANEL = 4096  # rows of a slab that are multiplied at a time where sums are kept in double precision


@dataclass(frozen=True)
class TallMatrix(ABC):
    """A tall m x n matrix, of which this rank has some rows.

    Attributes
    ----------
    comm : MPI.Comm
        The ranks that share the matrix.
    layout : Layout
        Of the tall matrix: its rows are dealt, its columns are not.
    shape : (int, int)
        ``(m, n)`` with ``m >= n``.
    flipped : bool
        Whether the tall matrix is the transpose of the one that was given.
    """

    comm: MPI.Comm
    layout: Layout
    shape: tuple[int, int]
    flipped: bool

    @property
    @abstractmethod
    def elements(self) -> Array:
        """The elements of this rank's rows, in any order; of a sparse matrix those that are stored."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.elements.dtype

    @property
    @abstractmethod
    def height(self) -> int:
        """How many rows this rank has."""

    @abstractmethod
    def product(self, V: Array) -> Array:
        """Return this rank's rows of A V, for V of shape (n, k) that every rank holds. Local."""

    @abstractmethod
    def contribution(self, W: Array) -> Array:
        """Return what this rank's rows contribute to A^H W, shape (n, k), C-ordered. Local."""

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return the slab of ``factor * A``, in new memory. Collective over comm."""

    def transposed_product(self, W: Array) -> Array:
        """Return A^H W on every rank, for this rank's rows of W, shape (mloc, k). Collective over comm."""
        Z = self.contribution(W)
        self.comm.Allreduce(MPI.IN_PLACE, Z)
        return Z

    def transposed_share(self, W: Array, heights: Array) -> Array:
        """Return this rank's rows of A^H W, if the ranks are given `heights` of them in turn. Collective over comm."""
        share = np.empty((int(heights[self.comm.rank]), W.shape[1]), W.dtype)
        self.comm.Reduce_scatter(self.contribution(W), share, heights * W.shape[1])
        return share

    def tall_result(self, ctx: TaskContext, W: Array) -> DistMatrix:
        """Return W, of which this rank passes its rows, or W^T if the slab is flipped. Collective over comm."""
        k = W.shape[1]
        layout = dataclasses.replace(self.layout, block=(self.layout.block[0], max(k, 1)))
        shape = (self.shape[0], k)
        if self.flipped:
            shape, layout = shape[::-1], layout.transposed()
        result = checks.allocated(ctx, shape, W.dtype, layout)
        result.local[...] = W.T if self.flipped else W
        return result

    def small_result(self, ctx: TaskContext, V: Array) -> DistMatrix:
        """Return V^H, shape (k, n), of V that every rank passes; or conj(V) if the slab is flipped. Collective."""
        V = V.conj()
        return checks.replicated(ctx, *((V, "VC_STAR") if self.flipped else (V.T, "STAR_VC")))


@dataclass(frozen=True)
class RowSlab(TallMatrix):
    """A dense one.

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
        """How many rows this rank has."""
        return len(self.local)

    def product(self, V: Array) -> Array:
        """Return this rank's rows of A V, for V of shape (n, k) that every rank holds. Local."""
        W: Array = self.local @ V
        return W

    def contribution(self, W: Array) -> Array:
        """Return what this rank's rows contribute to A^H W. Local."""
        return np.ascontiguousarray((self.local.T @ W.conj()).conj())  # the small ones are conjugated; no copy if real

    def gram(self, ctx: TaskContext) -> Array:
        """Return A^H A on every rank, summed in double precision. Collective over comm."""
        m, n = self.shape
        G = np.zeros((n, n), np.result_type(self.dtype, np.float64))
        for part in stopping.in_parts(ctx, m * n * n, self.dtype, self.local.shape[0]):
            rows = self.local[part]
            if self.dtype == np.float64:
                G += rows.T @ rows  # NumPy recognises this as a symmetric rank-k update: half the work
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
    """A sparse one.

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
        """How many rows this rank has."""
        return self.matrix.rows.size

    def product(self, V: Array) -> Array:
        """Return this rank's rows of A V, for V of shape (n, k) that every rank holds. Local."""
        W: Array = self.matrix.local @ V
        return W

    def contribution(self, W: Array) -> Array:
        """Return what this rank's rows contribute to A^H W. Local."""
        Z: Array = (self.matrix.local_transposed @ W.conj()).conj()
        return Z

    def scaled(self, factor: float) -> SparseSlab:
        """Return the slab of ``factor * A``, in new memory. Collective over comm."""
        matrix = self.matrix.like()
        np.multiply(self.elements, self.elements.real.dtype.type(factor), out=matrix.arrays.values)
        return dataclasses.replace(self, matrix=matrix)


def slab_of(A: DistMatrix) -> RowSlab:
    """Return `A`, or its transpose if that is the tall one, as a slab. Collective over comm if data must move."""
    m, n = A.shape
    if m >= n:
        A = A if deals_rows(A.layout) else A.relayout("VC_STAR")
        return RowSlab(A.comm, A.layout, A.shape, flipped=False, local=A.local)
    A = A if deals_rows(A.layout.transposed()) else A.relayout("STAR_VC")
    return RowSlab(A.comm, A.layout.transposed(), (n, m), flipped=True, local=A.local.T)


def sparse_slab_of(A: SparseDistMatrix) -> SparseSlab:
    """Return `A`, or its transpose if that is the tall one, as a slab. Collective over comm if data must move."""
    flipped = A.shape[0] < A.shape[1]
    A = A.transposed() if flipped else A
    return SparseSlab(A.comm, A.layout, A.shape, flipped, A)


def deals_rows(layout: Layout) -> bool:
    """Whether every rank holds some of the rows, each of them whole and no other rank's."""
    size = layout.grid.size
    rows, cols = layout.part((size, size), layout.grid.size - 1)
    return rows.stride == size and cols.stride == 1 and cols.size == size
