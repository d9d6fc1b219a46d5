"""Sparse matrices on the workers: handles, and how they are sent and fetched.

A worker holds its rows as three arrays in one block of memory (:mod:`.csr`), which is written and read as bytes: a
sparse matrix takes the same two paths as a dense one. What arrives is checked before any library sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.transfer.connection import Grant, WorkerConnection
from alchemist_ray.client.transfer.meter import Meter
from alchemist_ray.client.transfer.parts import Part
from alchemist_ray.client.transfer.plane import DataPlane, plane_of
from alchemist_ray.client.transfer.times import TransferTimes
from alchemist_ray.errors import InvalidArrayError
from alchemist_ray.layouts.csr import CsrArrays, CsrShape, check, slab_rows
from alchemist_ray.layouts.spec import SparseSpec, check_dtype, check_shape

Array = npt.NDArray[Any]


class SparseMatrixHandle(MatrixHandle):
    """A sparse matrix that lives with the workers of a session, dealt out by rows.

    ``session.fetch_matrix(handle)`` and ``handle[...]`` give a ``scipy.sparse.csr_array``; ``np.asarray(handle)`` is
    dense. ``A @ B`` and ``A.T @ B`` with dense B, ``2 * A``, ``A.T`` and ``A.norm()`` compute on the workers, as do the
    routines of ``linalg`` that say so.
    """

    spec: SparseSpec  # type: ignore[assignment]  # that of a dense handle is a MatrixSpec

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return self.spec.nnz

    def fetch(self, out: Any = None, meter: Meter | None = None) -> tuple[Any, list[TransferTimes]]:
        """Return the matrix as a ``scipy.sparse.csr_array``, and the seconds that each worker's part took.

        Raises
        ------
        InvalidArrayError
            If `out` is given: the arrays of a sparse matrix are made as large as it turns out to be.
        FreedMatrixError
            If the matrix has been freed.
        GroupDiedError
            If its workers are gone.
        """
        self.check_alive()
        if out is not None:
            raise InvalidArrayError("a sparse matrix is fetched into arrays of its own: leave out= away")
        try:
            from scipy.sparse import csr_array
        except ImportError as missing:
            raise ImportError("a sparse matrix is fetched as one of SciPy: pip install scipy") from missing
        arrays, times = fetch_sparse(plane_of(self.address), self.matrix_id, self.spec, meter or Meter())
        return csr_array((arrays.values, arrays.indices, arrays.indptr), self.shape), times

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a MatrixHandle becomes an array only by copying it from its workers")
        dense: Array = self.fetch()[0].toarray()
        return dense if dtype is None else dense.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        """Return a part as SciPy does; all of the matrix is fetched for it."""
        return self.fetch()[0][key]

    def rows(self, start: int = 0, stop: int | None = None, block: int | None = None) -> Iterator[Any]:
        """Yield the rows ``start .. stop-1`` as sparse arrays of `block` rows each; for that, all of it is fetched.

        Parameters
        ----------
        start, stop : int
            Of the rows; all by default. Negative ones count from the end.
        block : int, optional
            Rows a time; by default all at once.
        """
        if block is not None and block < 1:
            raise ValueError(f"block must be at least 1 row, not {block}")
        first, last, _ = slice(start, stop).indices(self.shape[0])
        whole = self.fetch()[0]
        for row in range(first, last, block or max(1, last - first)):
            yield whole[row : min(row + block, last) if block else last]

    def to_dense(self) -> MatrixHandle:
        """Return the matrix with all its zeros, dealt by rows as it is; see :meth:`relayout`.

        Raises
        ------
        MatrixMemoryError
            If the workers have no room for it.
        """
        dense: MatrixHandle = self._compute("to_dense", A=self)
        return dense

    def __repr__(self) -> str:
        m, n = self.shape
        state = "freed, " if self.freed else ""
        return (
            f"<SparseMatrixHandle {self.matrix_id}: {m} x {n} {self.dtype}, {self.nnz:,} entries, {state}"
            f"session {self.address.session}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return SparseMatrixHandle, super().__reduce__()[1]


def is_sparse(matrix: Any) -> bool:
    """Whether `matrix` is a sparse matrix or array of SciPy's, or behaves as one."""
    return hasattr(matrix, "tocsr") and hasattr(matrix, "nnz")


def sparse_arrays(matrix: Any, size: int) -> tuple[SparseSpec, CsrArrays]:
    """Return what `matrix` (of SciPy) is when dealt to `size` workers, and its arrays in compressed rows.

    Raises
    ------
    InvalidArrayError
        If it has no elements, is of a type that no matrix has, or its arrays are not those of compressed rows.
    """
    csr = matrix.tocsr()
    m, n = check_shape(tuple(map(int, csr.shape)))
    dtype = check_dtype(csr.data.dtype)
    nnz = int(csr.indptr[-1])
    arrays = CsrArrays(csr.indptr, csr.indices[:nnz], csr.data[:nnz])  # there may be room for more behind them
    check(arrays, n)  # here, where copying by wrong pointers would end this process, and again where it arrives
    counts = tuple(arrays.entries_of(*slab_rows(m, size, rank)) for rank in range(size))
    return SparseSpec((m, n), dtype, counts), arrays


def send_sparse(
    plane: DataPlane, matrix_id: int, spec: SparseSpec, arrays: CsrArrays, meter: Meter
) -> list[TransferTimes]:
    """Create a sparse matrix on the workers and write all of it; return the times by rank.

    Raises
    ------
    MatrixMemoryError
        If a worker has no room for its part; nothing has been sent, then.
    InvalidArrayError
        If the arrays are not those of a matrix in compressed rows.
    GroupDiedError
        If a worker is gone.
    """
    return plane.run(partial(_send, plane, matrix_id, spec, arrays, meter), meter)


def _send(plane: DataPlane, matrix_id: int, spec: SparseSpec, arrays: CsrArrays, meter: Meter) -> list[TransferTimes]:
    grants = plane.grants(matrix_id, spec, private=True)
    slabs = [(c, Part.of_bytes(spec.slab(c.endpoint.rank).nbytes)) for c in plane.connections]
    try:
        actions = [partial(_write_slab, c, spec, arrays, grants[c.endpoint.rank], meter) for c in plane.connections]
        times = plane.at_once(actions, spec.nbytes, meter)
        plane.commit(matrix_id, slabs)
    except BaseException:
        plane.release(matrix_id, slabs)
        plane.drop(matrix_id)
        raise
    return times


def _write_slab(
    connection: WorkerConnection, spec: SparseSpec, arrays: CsrArrays, grant: Grant, meter: Meter
) -> TransferTimes:
    rank = connection.endpoint.rank
    slab = spec.slab(rank)
    start, stop = slab_rows(spec.shape[0], len(spec.counts), rank)
    first, last = int(arrays.indptr[start]), int(arrays.indptr[stop])
    pieces = (
        (arrays.indptr[start : stop + 1] - first).astype(slab.index_dtype, copy=False),
        arrays.indices[first:last].astype(slab.index_dtype, copy=False),
        arrays.values[first:last].astype(spec.dtype, copy=False),
    )
    times = TransferTimes(connection.endpoint.worker_id)
    for (begin, end), piece in zip(slab.spans, pieces, strict=True):
        if begin < end:
            part = Part.of_bytes(slab.nbytes, begin, end)
            from_here = replace(grant, offset=grant.offset + begin)
            times += connection.write(part, from_here, _as_bytes(np.ascontiguousarray(piece)), meter)
    return times


def fetch_sparse(
    plane: DataPlane, matrix_id: int, spec: SparseSpec, meter: Meter
) -> tuple[CsrArrays, list[TransferTimes]]:
    """Return the arrays of a sparse matrix in compressed rows, and the times by rank.

    Raises
    ------
    FreedMatrixError, IncompleteMatrixError
        If the workers do not have it, or not all of it.
    GroupDiedError
        If a worker is gone.
    """
    m, n = spec.shape
    index_dtype = CsrShape(m, n, spec.nnz, spec.dtype).index_dtype
    whole = CsrArrays(np.empty(m + 1, index_dtype), np.empty(spec.nnz, index_dtype), np.empty(spec.nnz, spec.dtype))
    actions = [partial(_read_slab, c, matrix_id, spec, whole, meter) for c in plane.connections]
    return whole, plane.run(partial(plane.at_once, actions, spec.nbytes, meter), meter)


def _read_slab(
    connection: WorkerConnection, matrix_id: int, spec: SparseSpec, whole: CsrArrays, meter: Meter
) -> TransferTimes:
    rank = connection.endpoint.rank
    slab = spec.slab(rank)
    start, stop = slab_rows(spec.shape[0], len(spec.counts), rank)
    first = sum(spec.counts[:rank])
    targets = (
        whole.indptr[start : stop + 1],
        whole.indices[first : first + slab.nnz],
        whole.values[first : first + slab.nnz],
    )
    times = TransferTimes(connection.endpoint.worker_id)
    for number, ((begin, end), target) in enumerate(zip(slab.spans, targets, strict=True)):
        if begin == end:
            continue
        # The row pointers are those of the slab, and integers may be narrower there than in the whole matrix.
        dtype = target.dtype if number == 2 else slab.index_dtype
        piece = target if number and target.dtype == dtype else np.empty(target.size, dtype)
        times += connection.read(matrix_id, Part.of_bytes(slab.nbytes, begin, end), _as_bytes(piece), meter)
        if piece is not target:
            np.add(piece, 0 if number else first, out=target, dtype=np.int64, casting="unsafe")
    return times


def _as_bytes(array: Array) -> Array:
    return array.view(np.uint8).reshape(1, -1)
