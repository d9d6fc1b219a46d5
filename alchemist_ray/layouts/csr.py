"""Sparse matrices in compressed rows (CSR), distributed by slabs of rows. Each slab is one piece of memory.

Each of p ranks holds ``ceil(m / p)`` consecutive rows of a sparse m x n matrix (the last ranks hold fewer, or none).
These are the rows that ``VC_STAR`` with its default block gives to the rank. A slab is three arrays, one after the
other in one buffer, so that it is allocated, mapped and sent like the block of a dense matrix::

    indptr   rows + 1 integers   row i has the entries indptr[i] .. indptr[i+1]-1; indptr[0] is 0
    indices  nnz integers        column of each entry
    values   nnz elements        value of each entry

Each array begins at a multiple of 64 bytes, the width of a cache line and of the widest vector registers. The integers
are int32 if that can count the entries of the slab and the columns, else int64. SciPy wants both integer arrays of one
type, and would copy them if one of them were wider.

The entries of a row may be in any order, and an entry may occur twice (the two are added). Both sides of the wire use
this module; it does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import InvalidArrayError

Array = npt.NDArray[Any]

ALIGNMENT = 64
"""Each array of a slab begins at a multiple of this many bytes."""

_STRIP = 1 << 20
"""Row pointers that are checked at a time."""


class CsrArrays(NamedTuple):
    """The three arrays of a matrix in compressed rows."""

    indptr: Array
    indices: Array
    values: Array

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.indptr.size - 1

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return self.values.size

    def entries_of(self, start: int, stop: int) -> int:
        """Return the number of entries of the rows ``start .. stop-1``."""
        return int(self.indptr[stop]) - int(self.indptr[start])


@dataclass(frozen=True)
class CsrShape:
    """The numbers that determine how a slab lies in memory.

    Attributes
    ----------
    rows, cols : int
        Rows of the slab, and columns of the matrix.
    nnz : int
        Entries of the slab.
    dtype : dtype
        Element type of the entries.
    """

    rows: int
    cols: int
    nnz: int
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        if min(self.rows, self.cols, self.nnz) < 0:
            raise InvalidArrayError(
                f"a sparse matrix cannot have {self.rows} rows, {self.cols} columns, {self.nnz} entries"
            )

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """Type of the integers."""
        return np.dtype(np.int32 if max(self.cols, self.nnz) < 2**31 else np.int64)

    @property
    def _starts(self) -> tuple[int, int, int]:
        """Bytes before the column indices, before the values, and after them."""
        size = self.index_dtype.itemsize
        indices = _aligned((self.rows + 1) * size)
        values = indices + _aligned(self.nnz * size)
        return indices, values, values + _aligned(self.nnz * self.dtype.itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer. Never 0."""
        return self._starts[2]

    @property
    def spans(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Bytes [start, stop) of the row pointers, of the column indices and of the values in the buffer."""
        indices, values, _ = self._starts
        size = self.index_dtype.itemsize
        return (
            (0, (self.rows + 1) * size),
            (indices, indices + self.nnz * size),
            (values, values + self.nnz * self.dtype.itemsize),
        )

    def views(self, buffer: Array) -> CsrArrays:
        """Return the three arrays of a slab as views of `buffer`.

        Parameters
        ----------
        buffer : ndarray of uint8
            Contiguous, of :attr:`nbytes` bytes.

        Raises
        ------
        InvalidArrayError
            If the buffer has another size.
        """
        if buffer.nbytes != self.nbytes:
            raise InvalidArrayError(f"{self} takes {self.nbytes} bytes, but the buffer has {buffer.nbytes}")
        octets = buffer.reshape(-1).view(np.uint8)
        dtypes = self.index_dtype, self.index_dtype, self.dtype
        spans = zip(self.spans, dtypes, strict=True)
        return CsrArrays(*(octets[start:stop].view(dtype) for (start, stop), dtype in spans))


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def slab_rows(m: int, size: int, rank: int) -> tuple[int, int]:
    """Return the half-open range of the rows that `rank` of `size` ranks holds of a matrix of `m` rows."""
    height = -(-m // size)
    return min(m, rank * height), min(m, (rank + 1) * height)


def fill(slab: CsrArrays, matrix: CsrArrays, start: int) -> None:
    """Fill `slab` with the rows of `matrix` that begin at row `start`.

    Raises
    ------
    InvalidArrayError
        If `matrix` has too few rows, or these rows do not have as many entries as `slab`.
    """
    stop = start + slab.rows
    if stop > matrix.rows or matrix.entries_of(start, stop) != slab.nnz:
        raise InvalidArrayError(
            f"rows {start}..{stop - 1} of a sparse matrix do not have the {slab.nnz} entries announced"
        )
    first = int(matrix.indptr[start])
    _shift(matrix.indptr[start : stop + 1], -first, slab.indptr)
    slab.indices[...] = matrix.indices[first : first + slab.nnz]
    slab.values[...] = matrix.values[first : first + slab.nnz]


def place(slab: CsrArrays, matrix: CsrArrays, start: int, first: int) -> None:
    """Write the rows of `slab` to `matrix`, beginning at row `start` and entry `first`."""
    _shift(slab.indptr, first, matrix.indptr[start : start + slab.rows + 1])
    matrix.indices[first : first + slab.nnz] = slab.indices
    matrix.values[first : first + slab.nnz] = slab.values


def _shift(indptr: Array, by: int, out: Array) -> None:
    np.add(indptr, by, out=out, dtype=np.int64, casting="unsafe")


def check(slab: CsrArrays, cols: int) -> None:
    """Check that the row pointers ascend from 0 to the number of entries, and that all columns exist.

    Compiled code can use a slab that passes, although it checks nothing itself. The check needs a few MiB of memory
    beyond the arrays.

    Raises
    ------
    InvalidArrayError
        If the slab does not pass.
    """
    indptr, indices, _ = slab
    if indptr[0] != 0 or indptr[-1] != slab.nnz:
        raise InvalidArrayError(
            f"the row pointers of a sparse matrix must go from 0 to its {slab.nnz} entries, but go from {indptr[0]} to "
            f"{indptr[-1]}"
        )
    for start in range(0, slab.rows, _STRIP):
        strip = indptr[start : start + _STRIP + 1]
        if not (strip[1:] >= strip[:-1]).all():
            row = start + int(np.argmin(strip[1:] >= strip[:-1]))
            raise InvalidArrayError(
                f"the row pointers of a sparse matrix must ascend, but those of local row {row} go from {indptr[row]} "
                f"to {indptr[row + 1]}"
            )
    if slab.nnz and not (indices.min() >= 0 and indices.max() < cols):
        raise InvalidArrayError(
            f"the column indices of a sparse matrix with {cols} columns must lie in 0..{cols - 1}, but go from "
            f"{indices.min()} to {indices.max()}"
        )
