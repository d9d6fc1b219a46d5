"""Write a matrix part by part, from any number of processes."""

from __future__ import annotations

import operator
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.transfer.meter import Meter
from alchemist_ray.client.transfer.plane import plane_of
from alchemist_ray.errors import IncompleteMatrixError, InvalidArrayError, RegionError
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec, as_array

Array = npt.NDArray[Any]

_NAMED = 8
"""How many missing regions an error names."""


class MatrixWriter:
    """A matrix that is being written: rectangles of it, in any order, by any number of threads and processes.

    ::

        writer = session.matrix_writer((1_000_000, 500), np.float64, "VC_STAR")
        ray.get([read_and_write.remote(writer, i) for i in range(64)])    # each: writer.write(block, row=...)
        A = writer.close()

    It pickles: in another process it writes straight to the workers. The process that made it closes it. If a sender
    dies, its part is missing and can be written again; the other parts stay.

    Attributes
    ----------
    spec : MatrixSpec
        Shape, element type and layout.
    matrix_id : int
        The matrix's number in the session.
    """

    def __init__(self, handle: MatrixHandle) -> None:
        self._handle = handle
        self._closed = False

    @property
    def matrix_id(self) -> int:
        """The matrix's number in the session."""
        return self._handle.matrix_id

    @property
    def spec(self) -> MatrixSpec:
        """Shape, element type and layout of the matrix."""
        return self._handle.spec

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.spec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the matrix."""
        return self.spec.dtype

    @property
    def address(self) -> GroupAddress:
        """Where the matrix's workers are."""
        return self._handle.address

    def write(self, block: npt.ArrayLike, row: int = 0, column: int = 0, meter: Meter | None = None) -> None:
        """Write a rectangle of the matrix; if a worker refuses its part, nothing is written.

        Parameters
        ----------
        block : array_like, shape (p, q) or (q,)
            The elements, any strides; of the matrix's dtype or one that NumPy casts to it safely. A vector is a row.
        row, column : int
            Place of ``block[0, 0]`` in the matrix.
        meter : Meter, optional
            Counts the bytes as they move.

        Raises
        ------
        InvalidArrayError
            If `block` is not a matrix, has masked elements, or has a dtype that NumPy does not cast safely.
        RegionError
            If it lies outside the matrix, or overlaps a region that was written before or is being written.
        FreedMatrixError
            If the writer was aborted.
        GroupDiedError
            If the workers are gone.
        """
        array = self._as_block(block)
        row, column = operator.index(row), operator.index(column)
        region = Rectangle(row, row + array.shape[0], column, column + array.shape[1])
        m, n = self.shape
        if not (row >= 0 and region.i1 <= m and column >= 0 and region.j1 <= n):
            raise RegionError(self.matrix_id, str(region), f"lies outside the {m} x {n} matrix")
        if self._closed:
            raise RegionError(self.matrix_id, str(region), "has been written before: the writer is closed")
        if region.area:
            plane_of(self.address).write(self.matrix_id, self.spec, array, row, column, meter)

    def _as_block(self, block: npt.ArrayLike) -> Array:
        array = as_array(block)
        if array.ndim == 1:
            array = array[np.newaxis]
        if array.ndim != 2:
            raise InvalidArrayError(f"a block has 2 dimensions (or 1: a row), but this array has {array.ndim}")
        if not np.can_cast(array.dtype, self.dtype, "safe"):
            raise InvalidArrayError(
                f"a block of dtype {array.dtype} is not safely cast to the {self.dtype} of the matrix: convert it "
                f"yourself, for example with astype(np.{self.dtype})"
            )
        return array.astype(self.dtype, copy=False)

    def forget_pages(self) -> None:
        """Take the workers' pages that this process has written out of its memory count."""
        plane_of(self.address).forget_pages()

    def missing(self) -> list[Rectangle]:
        """Return the rectangles that have not been written; neighbours are joined.

        Raises
        ------
        FreedMatrixError
            If the writer was aborted.
        """
        return plane_of(self.address).missing(self.matrix_id, self.spec)

    def close(self) -> MatrixHandle:
        """Return the complete matrix. Closing again returns the same handle.

        Raises
        ------
        IncompleteMatrixError
            If parts are missing; the error names them, and they can still be written.
        """
        if not self._closed:
            missing = self.missing()
            if missing:
                named = "; ".join(map(str, missing[:_NAMED])) + ("; and more" if len(missing) > _NAMED else "")
                raise IncompleteMatrixError(self.matrix_id, f"{named} not written")
            self._closed = True
        return self._handle

    def abort(self) -> None:
        """Free the matrix and all that was written. Nothing happens if the writer is closed."""
        if not self._closed:
            self._handle.free()

    def drop(self) -> None:
        """Have the matrix freed with the next request; dead workers are not an error."""
        self._handle.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def __reduce__(self) -> tuple[Any, ...]:
        return MatrixWriter, (self._handle,)

    def __repr__(self) -> str:
        m, n = self.shape
        state = ", closed" if self._closed else ""
        return f"<MatrixWriter of matrix {self.matrix_id}: {m} x {n} {self.dtype}, {self.spec.layout}{state}>"
