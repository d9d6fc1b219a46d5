"""A distributed sparse matrix as the ranks of a group see it: compressed rows, distributed in equal slabs.

The rows are distributed as in ``VC_STAR`` with its default block, so that products with dense matrices in that layout
need no exchange of them. A rank's slab is three arrays in one buffer (:mod:`.csr`), and compiled code uses it as a
SciPy array over the same memory. SciPy is imported only when a matrix is first used in a computation, because the
import takes longer than the start of a worker.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts.csr import CsrArrays, CsrShape, fill, slab_rows
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.distmatrix import Allocate, DistMatrix, _allocate_plain

Array = npt.NDArray[Any]


class SparseDistMatrix:
    """A sparse matrix distributed by rows over the ranks of a communicator.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks.
    shape : (int, int)
        Rows and columns of the whole matrix.
    dtype : dtype
        Element type.
    counts : sequence of int
        Entries of each rank's slab.
    buffer : ndarray of uint8
        This rank's slab, of :meth:`slab` ``.nbytes`` bytes. Its contents must have passed
        :func:`alchemist_ray.layouts.csr.check`.
    allocate : callable
        ``allocate(shape, dtype)`` makes the local blocks of matrices derived from this one.

    Attributes
    ----------
    layout : Layout
        The layout of a dense matrix of this shape by rows.
    rows : AxisPart
        The rows that this rank holds.
    arrays : CsrArrays
        This rank's slab, with the column indices of the whole matrix.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        shape: tuple[int, int],
        dtype: npt.DTypeLike,
        counts: tuple[int, ...],
        buffer: Array,
        allocate: Allocate = _allocate_plain,
    ) -> None:
        self.comm = comm
        self.shape = shape
        self.counts = tuple(counts)
        self.layout = Layout.of("VC_STAR", shape, comm.size)
        self.rows, _ = self.layout.part(shape, comm.rank)
        self.buffer = buffer
        self.arrays = self.slab(comm.size, comm.rank, shape, dtype, self.counts[comm.rank]).views(buffer)
        self.allocate = allocate

    @staticmethod
    def slab(size: int, rank: int, shape: tuple[int, int], dtype: npt.DTypeLike, nnz: int) -> CsrShape:
        """Return the shape of the slab, with `nnz` entries, that `rank` of `size` holds of a matrix. Local."""
        start, stop = slab_rows(shape[0], size, rank)
        return CsrShape(stop - start, shape[1], nnz, np.dtype(dtype))

    @classmethod
    def from_local(
        cls, comm: MPI.Comm, shape: tuple[int, int], arrays: CsrArrays, allocate: Allocate = _allocate_plain
    ) -> Self:
        """Return a matrix from the rows that each rank passes, which are copied. Collective over comm.

        Raises
        ------
        MatrixMemoryError
            If this rank has no room for its rows.
        PeerFailedError
            If another rank has no room.
        """
        dtype, nnz = arrays.values.dtype, arrays.nnz
        slab = cls.slab(comm.size, comm.rank, shape, dtype, nnz)
        with Agreement(comm):
            buffer = allocate((1, slab.nbytes), np.dtype(np.uint8))
            fill(slab.views(buffer), arrays, 0)
        return cls(comm, shape, dtype, tuple(comm.allgather(nnz)), buffer, allocate)

    @classmethod
    def from_global(cls, comm: MPI.Comm, A: Any, allocate: Allocate = _allocate_plain) -> Self:
        """Return `A` as a distributed matrix; every rank passes the whole SciPy CSR array. Collective over comm."""
        start, stop = slab_rows(A.shape[0], comm.size, comm.rank)
        local = A[start:stop]
        return cls.from_local(comm, A.shape, CsrArrays(local.indptr, local.indices, local.data), allocate)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.arrays.values.dtype

    @property
    def nnz(self) -> int:
        """Entries of the whole matrix, zeros and duplicates included."""
        return sum(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix."""
        size = self.comm.size
        return sum(self.slab(size, rank, self.shape, self.dtype, nnz).nbytes for rank, nnz in enumerate(self.counts))

    @cached_property
    def local(self) -> Any:
        """Rows of this rank as a ``scipy.sparse.csr_array`` over :attr:`arrays`. Do not change it."""
        return self.rows_with(self.arrays.values)

    @cached_property
    def local_transposed(self) -> Any:
        """The transpose of :attr:`local` as a ``scipy.sparse.csc_array`` over :attr:`arrays`. Do not change it."""
        return self.rows_with(self.arrays.values, transposed=True)

    def rows_with(self, values: Array, transposed: bool = False) -> Any:
        """Return :attr:`local`, or :attr:`local_transposed`, with other values. Local."""
        from scipy.sparse import csc_array, csr_array

        shape = (self.rows.size, self.shape[1])
        # A constructor that gets arrays copies views of much larger arrays, and views of a buffer look like such.
        local = csc_array(shape[::-1], dtype=values.dtype) if transposed else csr_array(shape, dtype=values.dtype)
        local.indptr, local.indices, local.data = self.arrays._replace(values=values)
        return local

    def like(self, dtype: npt.DTypeLike | None = None) -> SparseDistMatrix:
        """Return a matrix with entries in the same places and arbitrary values. Collective over comm."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        slab = self.slab(self.comm.size, self.comm.rank, self.shape, dtype, self.arrays.nnz)
        with Agreement(self.comm):
            buffer = self.allocate((1, slab.nbytes), np.dtype(np.uint8))
        views = slab.views(buffer)
        views.indptr[...] = self.arrays.indptr
        views.indices[...] = self.arrays.indices
        return SparseDistMatrix(self.comm, self.shape, dtype, self.counts, buffer, self.allocate)

    def without_duplicates(self) -> SparseDistMatrix:
        """Return the matrix without duplicate entries; the matrix itself if it has none. Collective over comm."""
        unique = np.array([self.local.has_canonical_format], np.int8)
        self.comm.Allreduce(MPI.IN_PLACE, unique, MPI.MIN)
        if unique[0]:
            return self
        local = self.local.copy()
        local.sum_duplicates()
        arrays = CsrArrays(local.indptr, local.indices, local.data)
        return SparseDistMatrix.from_local(self.comm, self.shape, arrays, self.allocate)

    def to_dense(self, layout: Layout | str | None = None) -> DistMatrix:
        """Return the matrix as a dense one, by default distributed by rows as this one. Collective over comm."""
        with Agreement(self.comm):
            A = DistMatrix.empty(self.comm, self.shape, self.dtype, self.layout, self.allocate)
        self.local.toarray(out=A.local)
        return A if layout is None else A.relayout(layout)

    def transposed(self, conjugate: bool = False) -> SparseDistMatrix:
        """Return the transpose, distributed by its own rows. Collective over comm.

        Each rank sends every other rank the entries of the columns that become that rank's rows. At most four copies of
        the entries exist at the same time.
        """
        from scipy.sparse import csr_array, hstack

        comm, (m, n) = self.comm, self.shape
        mine = self.local_transposed.tocsr()
        cuts = [slab_rows(n, comm.size, rank) for rank in range(comm.size)]
        height = cuts[comm.rank][1] - cuts[comm.rank][0]
        lengths = np.diff(mine.indptr).astype(np.int64)
        lengths = _exchanged(comm, lengths, [stop - start for start, stop in cuts], [height] * comm.size)
        sent = [int(mine.indptr[stop] - mine.indptr[start]) for start, stop in cuts]
        received = [int(each.sum()) for each in np.split(lengths, comm.size)]
        # the same type on all ranks, as SciPy may have chosen a wider type on some
        indices = _exchanged(comm, mine.indices.astype(np.int32 if m < 2**31 else np.int64), sent, received)
        values = _exchanged(comm, mine.data.conj() if conjugate else mine.data, sent, received)
        del mine
        pieces, first = [], 0
        for rank, nnz in enumerate(received):
            start, stop = slab_rows(m, comm.size, rank)
            indptr = np.concatenate([[0], np.cumsum(lengths[rank * height : (rank + 1) * height])])
            piece = values[first : first + nnz], indices[first : first + nnz], indptr
            pieces.append(csr_array(piece, (height, stop - start)))
            first += nnz
        whole = hstack(pieces, format="csr")
        entries = whole.data.astype(self.dtype, copy=False)  # bool comes out as int8
        return SparseDistMatrix.from_local(comm, (n, m), CsrArrays(whole.indptr, whole.indices, entries), self.allocate)

    def __repr__(self) -> str:
        m, n = self.shape
        return f"SparseDistMatrix({m}x{n} {self.dtype}, {self.nnz} entries, {self.arrays.nnz} on rank {self.comm.rank})"


def _exchanged(comm: MPI.Comm, outgoing: Array, sent: list[int], received: list[int]) -> Array:
    """Return the elements that all ranks send to this one, in the order of the ranks. Collective over comm."""
    incoming = np.empty(sum(received), outgoing.dtype)
    comm.Alltoallv([outgoing, sent], [incoming, received])
    return incoming
