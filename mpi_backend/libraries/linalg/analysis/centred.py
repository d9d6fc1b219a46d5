"""A tall matrix minus the mean of the samples, without a copy of it.

The samples are the rows of a matrix A, which is tall, or the transpose of a tall matrix. So the mean is a row to
subtract from each row of the tall matrix, or a column to subtract from each of its columns. For a dense matrix it is
subtracted from one panel of rows at a time, when the panel is used. So no digits cancel, however far from zero the
samples lie, and only the panel is copied. A sparse matrix would become dense, so its products are corrected afterwards:

    (A - 1 mu^T) V = A V - 1 (mu^T V)

This loses digits if the mean is much larger than the differences between the samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import stopping
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.scaling import safe_factor
from alchemist_ray.mpi_backend.libraries.linalg.slabs import RowSlab, SparseSlab, TallMatrix, slab_of, sparse_slab_of

Array = npt.NDArray[Any]

_PANEL = 1 << 20
"""Elements of a panel of rows."""


@dataclass(frozen=True)
class Centred(TallMatrix):
    """The tall matrix minus its mean.

    Attributes
    ----------
    slab : RowSlab or SparseSlab
        The tall matrix without centring.
    mean : ndarray of float64, shape (n,), or (mloc,) if the slab is flipped
        The row to subtract from each row, the same on every rank; or this rank's rows of the column to subtract from
        each column.
    """

    slab: RowSlab | SparseSlab
    mean: npt.NDArray[np.float64]

    @property
    def elements(self) -> Array:
        """The elements of this rank's rows, without the mean subtracted."""
        return self.slab.elements

    @property
    def height(self) -> int:
        """Number of rows of this rank."""
        return self.slab.height

    def product(self, V: Array) -> Array:
        """Return this rank's rows of the product with V; every rank passes the same V of shape (n, k). Local."""
        if isinstance(self.slab, SparseSlab):
            left, right = self._correction()
            W: Array = self.slab.product(V) - left[:, np.newaxis] * (right @ V)
            return W
        W = np.empty((self.height, V.shape[1]), self.dtype)
        for rows, panel in self.panels(self.dtype):
            np.matmul(panel, V, out=W[rows])
        return W

    def contribution(self, W: Array) -> Array:
        """Return the contribution of this rank's rows to the product of the transpose with W. Local."""
        if isinstance(self.slab, SparseSlab):
            left, right = self._correction()
            return np.ascontiguousarray(self.slab.contribution(W) - right[:, np.newaxis] * (left @ W))
        Z = np.zeros((self.shape[1], W.shape[1]), self.dtype)
        for rows, panel in self.panels(self.dtype):
            Z += panel.T @ W[rows]
        return Z

    def _correction(self) -> tuple[Array, Array]:
        """Return this rank's rows of a column, and a row; their product is what to subtract from the slab."""
        mean = self.mean.astype(self.dtype)
        if self.flipped:
            return mean, np.ones(self.shape[1], self.dtype)
        return np.ones(self.height, self.dtype), mean

    def scaled(self, factor: float) -> Self:
        """Return ``factor`` times the matrix, in new memory. Collective over comm."""
        return dataclasses.replace(self, slab=self.slab.scaled(factor), mean=self.mean * factor)

    def panels(self, dtype: np.dtype[Any], part: slice | None = None) -> Iterator[tuple[slice, Array]]:
        """Yield ranges of this rank's rows, or of a part of them, with the centred rows in new memory."""
        height = max(256, _PANEL // self.shape[1])
        mean = self.mean.astype(dtype)
        first, last = (0, self.height) if part is None else (part.start, part.stop)
        for start in range(first, last, height):
            rows = slice(start, min(start + height, last))
            panel = (
                self.slab.matrix.local[rows].toarray() if isinstance(self.slab, SparseSlab) else self.slab.local[rows]
            )
            yield rows, np.subtract(panel, mean[rows, np.newaxis] if self.flipped else mean, dtype=dtype)

    def gram(self, ctx: TaskContext) -> npt.NDArray[np.float64]:
        """Return the transpose times the matrix, in double precision, on every rank. Collective over comm."""
        (m, n), dtype = self.shape, np.dtype(np.float64)
        G = np.zeros((n, n))
        for part in stopping.in_parts(ctx, 2 * m * n * n, dtype, self.height):
            for _, panel in self.panels(dtype, part):
                G += panel.T @ panel
        self.comm.Allreduce(MPI.IN_PLACE, G)
        return G

    def triangle(self, ctx: TaskContext) -> npt.NDArray[np.float64]:
        """Return R of a QR factorisation, in double precision, on every rank. Collective over comm.

        Each panel is stacked on the R of the panels before it; then the triangles of the ranks are combined
        (:mod:`..factorizations.tsqr`).
        """
        (m, n), dtype = self.shape, np.dtype(np.float64)
        R = np.zeros((0, n))
        for part in stopping.in_parts(ctx, 4 * m * n * n, dtype, self.height):
            for _, panel in self.panels(dtype, part):
                R = np.asarray(np.linalg.qr(np.concatenate([R, panel]), mode="r"))
        return TSQR(self.comm, R).R

    def sum_of_squares(self) -> float:
        """Return the square of the Frobenius norm. Collective over comm."""
        if isinstance(self.slab, SparseSlab):
            mine = self._squares_of(self.slab.matrix)
        else:
            mine = sum(float(np.vdot(panel, panel)) for _, panel in self.panels(np.dtype(np.float64)))
        return float(self.comm.bcast(self.comm.allreduce(mine)))

    def _squares_of(self, matrix: SparseDistMatrix) -> float:
        """Return the sum of squares of this rank's centred rows: that of zeros, corrected for the stored entries."""
        zeros = float(self.mean @ self.mean) * (self.shape[1] if self.flipped else self.height)
        entries = matrix.local.tocoo()
        mean = self.mean[entries.row if self.flipped else entries.col]
        values = entries.data.astype(np.float64)
        return zeros + float(values @ (values - 2 * mean))

    def mean_row(self, ctx: TaskContext) -> npt.NDArray[np.float64]:
        """Return the mean of the samples on every rank. Collective over comm."""
        if not self.flipped:
            return self.mean
        mean: npt.NDArray[np.float64] = self.slab.tall_result(ctx, self.mean[:, np.newaxis]).to_global()[0]
        return mean


def centred(A: DistMatrix | SparseDistMatrix) -> tuple[Centred, float]:
    """Return the centred tall view of `A` times a factor, and the factor. Collective over comm.

    The factor is a power of two that keeps squares, and the sum for the mean, from overflow and underflow.
    """
    if isinstance(A, SparseDistMatrix):
        # squares are summed entry by entry, so entries must not be duplicated
        slab: RowSlab | SparseSlab = sparse_slab_of(A.without_duplicates())
    else:
        slab = slab_of(A)
    factor = safe_factor(slab.comm, slab.elements)
    if factor != 1:
        slab = slab.scaled(factor)
    mean = _row_means(slab) if slab.flipped else _column_means(slab)
    return Centred(slab.comm, slab.layout, slab.shape, slab.flipped, slab, mean), factor


def _row_means(slab: RowSlab | SparseSlab) -> npt.NDArray[np.float64]:
    """Return the mean of each of this rank's rows. Local."""
    n = slab.shape[1]
    if isinstance(slab, SparseSlab):
        return np.asarray(slab.matrix.local.sum(1, dtype=np.float64)).reshape(-1) / n
    return np.asarray(slab.local.sum(1, dtype=np.float64)) / n


def _column_means(slab: RowSlab | SparseSlab) -> npt.NDArray[np.float64]:
    """Return the mean of all rows. Collective over comm."""
    sums = np.zeros(slab.shape[1])
    local = slab.matrix.local if isinstance(slab, SparseSlab) else slab.local
    if slab.height:
        sums += np.asarray(local.sum(0, dtype=np.float64)).reshape(-1)
    slab.comm.Allreduce(MPI.IN_PLACE, sums)
    slab.comm.Bcast(sums)
    return sums / slab.shape[0]
