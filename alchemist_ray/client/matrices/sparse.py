"""Sparse matrices on the workers: handles, sending and fetching.

A worker holds its rows as three arrays in one block of memory (:mod:`.csr`), which is written and read as bytes. So a
sparse matrix takes the same two paths as a dense one. The worker checks the arrays before any library sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.matrices import arithmetic
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


class SparseElements:
    """Reads a sparse matrix straight from its workers, as a ``scipy.sparse.csr_array``.

    Parameters
    ----------
    matrix_id : int
        The matrix's number in the session.
    spec : SparseSpec
        Shape, element type and entries by rank.
    address : GroupAddress
        Where its workers are.
    """

    def __init__(self, matrix_id: int, spec: SparseSpec, address: GroupAddress) -> None:
        self._matrix_id = matrix_id
        self._spec = spec
        self._address = address

    def fetch(self, out: Any = None, meter: Meter | None = None) -> tuple[Any, list[TransferTimes]]:
        """Return the matrix, and the times of the transfer by rank; `out` must be None."""
        if out is not None:
            raise InvalidArrayError("a sparse matrix is fetched into new arrays: omit out")
        try:
            from scipy.sparse import csr_array
        except ImportError as missing:
            raise ImportError("a sparse matrix is fetched as a SciPy array: pip install scipy") from missing
        arrays, times = fetch_sparse(plane_of(self._address), self._matrix_id, self._spec, meter or Meter())
        return csr_array((arrays.values, arrays.indices, arrays.indptr), self._spec.shape), times

    def to_array(self) -> Array:
        """Return the matrix as a dense array."""
        dense: Array = self.fetch()[0].toarray()
        return dense

    def part(self, key: Any) -> Any:
        """Return the part that SciPy returns for `key`; the whole matrix is fetched for it."""
        return self.fetch()[0][key]

    def rows(self, start: int, stop: int | None, block: int | None) -> Iterator[Any]:
        """Yield rows ``start .. stop-1`` as sparse arrays of `block` rows each, by default one array."""
        first, last, _ = slice(start, stop).indices(self._spec.shape[0])
        whole = self.fetch()[0]
        for row in range(first, last, block or max(1, last - first)):
            yield whole[row : min(row + block, last) if block else last]


class SparseMatrixHandle(MatrixHandle):
    """A sparse matrix that lives with the workers of a session, distributed by rows.

    ``session.fetch_matrix(handle)`` and ``handle[...]`` give a ``scipy.sparse.csr_array``; ``np.asarray(handle)`` is
    dense. ``A @ B`` and ``A.T @ B`` with dense B, ``2 * A``, ``A.T`` and ``A.norm()`` compute on the workers, as do the
    routines of ``linalg`` that say so.
    """

    spec: SparseSpec  # type: ignore[assignment]  # a dense handle has a MatrixSpec

    def _make_elements(self) -> SparseElements:
        return SparseElements(self.matrix_id, self.spec, self.address)

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return self.spec.nnz

    def to_dense(self) -> MatrixHandle:
        """Return the matrix with all its zeros, distributed by rows as it is; see :meth:`relayout`.

        Raises
        ------
        MatrixMemoryError
            If the workers have no room for it.
        """
        dense: MatrixHandle = arithmetic.run(self, "to_dense")
        return dense

    def _described(self) -> str:
        state = ", freed" if self.freed else ""
        return f"{self.dtype}, {self.nnz:,} entries{state}"


def is_sparse(matrix: Any) -> bool:
    """Whether `matrix` is a sparse matrix or array of SciPy's, or behaves like one."""
    return hasattr(matrix, "tocsr") and hasattr(matrix, "nnz")


def sparse_arrays(matrix: Any, size: int) -> tuple[SparseSpec, CsrArrays]:
    """Return the spec of `matrix` (of SciPy's) on `size` workers, and its arrays in compressed rows.

    Raises
    ------
    InvalidArrayError
        If matrices do not have its type, or its arrays are not valid compressed rows.
    """
    csr = matrix.tocsr()
    m, n = check_shape(tuple(map(int, csr.shape)))
    dtype = check_dtype(csr.data.dtype)
    nnz = int(csr.indptr[-1])
    arrays = CsrArrays(csr.indptr, csr.indices[:nnz], csr.data[:nnz])  # the arrays may be longer than nnz
    check(arrays, n)  # wrong pointers would crash the copy here; the worker checks again
    counts = tuple(arrays.entries_of(*slab_rows(m, size, rank)) for rank in range(size))
    return SparseSpec((m, n), dtype, counts), arrays


def send_sparse(
    plane: DataPlane, matrix_id: int, spec: SparseSpec, arrays: CsrArrays, meter: Meter
) -> list[TransferTimes]:
    """Create a sparse matrix on the workers and write all of it; return the times by rank.

    Raises
    ------
    MatrixMemoryError
        If a worker has no room for its part; then nothing has been sent.
    InvalidArrayError
        If the arrays are not valid compressed rows.
    GroupDiedError
        If a worker is gone.
    """
    return plane.transfer(partial(_send, plane, matrix_id, spec, arrays, meter), meter)


def _send(plane: DataPlane, matrix_id: int, spec: SparseSpec, arrays: CsrArrays, meter: Meter) -> list[TransferTimes]:
    grants = plane.grants(matrix_id, spec, private=True)
    slabs = [(c, Part.of_bytes(spec.slab(c.endpoint.rank).nbytes)) for c in plane.connections]
    try:
        actions = [partial(_write_slab, c, spec, arrays, grants[c.endpoint.rank], meter) for c in plane.connections]
        times = plane.at_once(actions, spec.nbytes, meter)
        plane.commit(slabs, grants)
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
    return whole, plane.transfer(partial(plane.at_once, actions, spec.nbytes, meter), meter)


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
        # The row pointers count from the start of the slab, and its integers may be narrower than the whole matrix's.
        dtype = target.dtype if number == 2 else slab.index_dtype
        piece = target if number and target.dtype == dtype else np.empty(target.size, dtype)
        times += connection.read(matrix_id, Part.of_bytes(slab.nbytes, begin, end), _as_bytes(piece), meter)
        if piece is not target:
            np.add(piece, 0 if number else first, out=target, dtype=np.int64, casting="unsafe")
    return times


def _as_bytes(array: Array) -> Array:
    return array.view(np.uint8).reshape(1, -1)
