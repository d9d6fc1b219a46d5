"""Matrix handles: matrices that happen to live with the workers of a session."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.matrices import indexing
from alchemist_ray.client.matrices.arithmetic import Arithmetic, Computes
from alchemist_ray.client.matrices.server_files import WritesFiles
from alchemist_ray.client.transfer.meter import Meter
from alchemist_ray.client.transfer.plane import forget_plane, plane_of
from alchemist_ray.client.transfer.times import TransferTimes
from alchemist_ray.errors import FreedMatrixError, GroupDiedError, InvalidArrayError
from alchemist_ray.layouts.layout import Grid
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec, SparseSpec
from alchemist_ray.protocol.values import MatrixReference

Array = npt.NDArray[Any]

ROWS_BYTES = 64 * 2**20
"""Size of the blocks that :meth:`MatrixHandle.rows` yields, unless told otherwise."""


class MatrixHandle(Arithmetic, WritesFiles):
    """A matrix that lives, distributed, with the workers of a session. Its elements move only when asked for.

    Handles are made by a session. They pickle: in another process, a handle reads the same matrix straight from the
    workers. The matrix is freed by :meth:`free`, in any process; when the handle that the session made is garbage
    collected; and with the session's workers. A pickled copy does not keep it alive.

    ``np.asarray(handle)`` fetches all of it, ``handle[1000:2000, :]`` a part, ``handle.rows()`` one block of rows after
    the other. ``A @ B``, ``A + B``, ``2 * A``, ``A.T``, ``A.sum(axis)`` and ``A.norm()`` compute on the workers.

    Attributes
    ----------
    matrix_id : int
        Its number in the session.
    spec : MatrixSpec
        Shape, element type and layout.
    address : GroupAddress
        Where its workers are.
    """

    def __init__(
        self,
        matrix_id: int,
        spec: MatrixSpec | SparseSpec,
        address: GroupAddress,
        owned: bool,
        session: Computes | None = None,
    ) -> None:
        self._session = session
        self.matrix_id = matrix_id
        self.spec: MatrixSpec = spec  # type: ignore[assignment]  # of the handles of sparse matrices, theirs
        self.address = address
        self._freed = False
        if owned:
            self._finalizer: weakref.finalize[Any, Any] | None = weakref.finalize(
                self, plane_of(address).drop, matrix_id
            )
            self._finalizer.atexit = False
        else:
            self._finalizer = None

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.spec.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions: 2."""
        return 2

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.shape[0] * self.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.spec.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all elements, each counted once."""
        return self.spec.nbytes

    @property
    def layout(self) -> str:
        """Name of the distribution pair, e.g. ``"MC_MR"``."""
        return self.spec.layout.pair

    @property
    def grid(self) -> Grid:
        """The process grid."""
        return self.spec.layout.grid

    @property
    def block_size(self) -> tuple[int, int]:
        """Rows and columns of a block of the layout."""
        return self.spec.layout.block

    @property
    def freed(self) -> bool:
        """Whether the matrix was freed through this handle."""
        return self._freed

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        rows, cols = self.shape
        state = "freed, " if self._freed else ""
        return (
            f"<MatrixHandle {self.matrix_id}: {rows} x {cols} {self.dtype}, {state}{self.spec.layout}, "
            f"session {self.address.session}>"
        )

    # --- its elements -------------------------------------------------------------------------------------------------

    def fetch(self, out: Array | None = None, meter: Meter | None = None) -> tuple[Array, list[TransferTimes]]:
        """Return the elements, and the seconds that each worker's part took.

        Parameters
        ----------
        out : ndarray, optional
            Array of the matrix's shape and dtype to fill, any strides; a new one by default.
        meter : Meter, optional
            Counts the bytes as they move.

        Raises
        ------
        InvalidArrayError
            If `out` does not fit.
        FreedMatrixError
            If the matrix has been freed.
        IncompleteMatrixError
            If it is still being written.
        GroupDiedError
            If its workers are gone.
        """
        self.check_alive()
        if out is None:
            out = np.empty(self.shape, self.dtype)
        elif out.shape != self.shape or out.dtype != self.dtype or not out.flags.writeable:
            raise InvalidArrayError(
                f"out must be a writeable array of shape {self.shape} and dtype {self.dtype}, "
                f"not {out.shape} and {out.dtype}"
            )
        return out, plane_of(self.address).fetch(self.matrix_id, self.spec, out, meter=meter)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a MatrixHandle becomes an array only by copying it from its workers")
        fetched, _ = self.fetch()
        return fetched if dtype is None else fetched.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        """Return a part as an array: integers and slices, of any step, as for an ndarray."""
        self.check_alive()
        return indexing.part_of(key, self.shape, self.dtype, self._fetch_part)

    def _fetch_part(self, region: Rectangle, out: Array) -> None:
        plane_of(self.address).fetch(self.matrix_id, self.spec, out, region)

    def rows(self, start: int = 0, stop: int | None = None, block: int | None = None) -> Iterator[Array]:
        """Yield the rows ``start .. stop-1`` as arrays of `block` rows each, the last one of what is left.

        Parameters
        ----------
        start, stop : int
            Of the rows; all by default. Negative ones count from the end.
        block : int, optional
            Rows a time; by default as many as make 64 MiB.
        """
        if block is not None and block < 1:
            raise ValueError(f"block must be at least 1 row, not {block}")
        height = block or max(1, ROWS_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        first, last, _ = slice(start, stop).indices(self.shape[0])
        for row in range(first, last, height):
            yield self[row : min(row + height, last)]

    def __iter__(self) -> Iterator[Array]:
        for block in self.rows():
            yield from block

    def free(self) -> None:
        """Free the matrix on its workers. Freeing it twice is no error."""
        if self._freed:
            return
        self._freed = True
        self.disown()
        try:
            plane_of(self.address).free([self.matrix_id])
        except GroupDiedError:  # freed with its workers
            forget_plane(self.address)
        except BaseException:  # freed or not: it will be, with the next request
            plane_of(self.address).drop(self.matrix_id)
            raise

    def drop(self) -> None:
        """Have the matrix freed with the next request to its workers; no error if they are gone."""
        if not self._freed:
            self._freed = True
            self.disown()
            plane_of(self.address).drop(self.matrix_id)

    def disown(self) -> None:
        """Leave the matrix to somebody else to free."""
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None

    def check_alive(self) -> None:
        """Raise :class:`FreedMatrixError` if the matrix was freed through this handle."""
        if self._freed:
            raise FreedMatrixError(self.matrix_id)

    def reference(self) -> MatrixReference:
        """Return what stands for the matrix on the wire."""
        self.check_alive()
        return MatrixReference(self.matrix_id)

    def __reduce__(self) -> tuple[Any, ...]:
        self.check_alive()
        return MatrixHandle, (self.matrix_id, self.spec, self.address, False)
