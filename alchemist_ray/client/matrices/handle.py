"""Matrix handles: matrices that live with the workers of a session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.matrices import arithmetic
from alchemist_ray.client.matrices.computing import Computes
from alchemist_ray.client.matrices.elements import DenseElements, Elements
from alchemist_ray.client.matrices.ownership import Ownership
from alchemist_ray.client.matrices.server_files import Path, write_file
from alchemist_ray.client.transfer.meter import Meter
from alchemist_ray.client.transfer.times import TransferTimes
from alchemist_ray.errors import DetachedHandleError
from alchemist_ray.layouts.choice import LayoutChoice, LayoutLike, LayoutOptions
from alchemist_ray.layouts.grid import Grid
from alchemist_ray.layouts.spec import MatrixSpec, SparseSpec
from alchemist_ray.protocol.values import MatrixReference

Array = npt.NDArray[Any]


class MatrixHandle:
    """A matrix that lives, distributed, with the workers of a session. Its elements move only when asked for.

    Handles are made by a session. They pickle: in another process, a handle reads the same matrix straight from the
    workers. The matrix is freed by :meth:`free`, in any process; when the handle that the session made, and all copies
    of it in this process, are garbage collected; and with the session's workers. A pickled handle does not keep the
    matrix alive. ``copy.copy`` and ``copy.deepcopy`` give another handle of the same matrix.

    ``np.asarray(handle)`` fetches all of it, ``handle[1000:2000, :]`` a part, ``handle.rows()`` one block of rows after
    the other. ``A @ B``, ``A + B``, ``2 * A``, ``A.T``, ``A.sum(axis)`` and ``A.norm()`` compute on the workers:
    operands are handles, numbers, or arrays, which are sent. Element types are NumPy's; a number does not widen a
    matrix of its own kind (``2.5 * A`` of a float32 matrix is float32). Operators raise the errors of their tasks:
    :class:`~.ArgumentValueError` where shapes do not fit, :class:`~.ArgumentError` for element types that cannot be
    computed with, :class:`~.DetachedHandleError` where the handle has left the process of its session.

    Attributes
    ----------
    matrix_id : int
        Its number in the session.
    spec : MatrixSpec
        Shape, element type and layout.
    address : GroupAddress
        Where its workers are.
    """

    __array_ufunc__ = None  # ``array + handle`` is computed by the handle

    def __init__(
        self,
        matrix_id: int,
        spec: MatrixSpec | SparseSpec,
        address: GroupAddress,
        owned: bool,
        session: Computes | None = None,
    ) -> None:
        self.matrix_id = matrix_id
        self.spec: MatrixSpec = spec  # type: ignore[assignment]  # a sparse handle has a SparseSpec
        self.address = address
        self._ownership = Ownership(matrix_id, address, owned)
        self._session = session
        self._elements = self._make_elements()

    def _make_elements(self) -> Elements:
        """Return the reader of the elements."""
        return DenseElements(self.matrix_id, self.spec, self.address)

    # --- facts --------------------------------------------------------------------------------------------------------

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
        """Whether the matrix was freed through this handle or a copy of it."""
        return self._ownership.freed

    def __len__(self) -> int:
        return self.shape[0]

    def _described(self) -> str:
        state = "freed, " if self.freed else ""
        return f"{self.dtype}, {state}{self.spec.layout}"

    def __repr__(self) -> str:
        rows, cols = self.shape
        where = f"session {self.address.session}"
        return f"<{type(self).__name__} {self.matrix_id}: {rows} x {cols} {self._described()}, {where}>"

    # --- elements -----------------------------------------------------------------------------------------------------

    def fetch(self, out: Array | None = None, meter: Meter | None = None) -> tuple[Any, list[TransferTimes]]:
        """Return all elements, and the seconds that each worker's part took.

        Parameters
        ----------
        out : ndarray, optional
            Array of the matrix's shape and dtype to fill, any strides; a new one by default.
        meter : Meter, optional
            Counts the bytes as they move.

        Returns
        -------
        ndarray, shape (m, n)
            Of a sparse matrix, a ``scipy.sparse.csr_array``.
        list of TransferTimes
            By rank.

        Raises
        ------
        InvalidArrayError
            If `out` does not fit, or is given for a sparse matrix.
        FreedMatrixError
            If the matrix has been freed.
        IncompleteMatrixError
            If it is still being written.
        GroupDiedError
            If its workers are gone.
        """
        self.check_alive()
        return self._elements.fetch(out, meter)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a matrix handle becomes an array only by copying from its workers: omit copy=False")
        self.check_alive()
        fetched = self._elements.to_array()
        return fetched if dtype is None else fetched.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        """Return a part as an array: integers and slices, of any step, as for an ndarray."""
        self.check_alive()
        return self._elements.part(key)

    def rows(self, start: int = 0, stop: int | None = None, block: int | None = None) -> Iterator[Any]:
        """Yield rows ``start .. stop-1`` as arrays of `block` rows each; the last block may have fewer.

        Parameters
        ----------
        start, stop : int
            First row, and the row after the last; all rows by default. Negative numbers count from the end.
        block : int, optional
            Rows in an array; by default 64 MiB of them. A sparse matrix is fetched whole, and comes as one array by
            default.
        """
        if block is not None and block < 1:
            raise ValueError(f"block must be at least 1 row, not {block}")
        self.check_alive()
        yield from self._elements.rows(start, stop, block)

    def __iter__(self) -> Iterator[Any]:
        for block in self.rows():
            yield from block

    # --- lifetime -----------------------------------------------------------------------------------------------------

    def free(self) -> None:
        """Free the matrix on its workers. Freeing it twice has no effect."""
        self._ownership.free()

    def drop(self) -> None:
        """Have the matrix freed with the next request to its workers; dead workers are not an error."""
        self._ownership.drop()

    def disown(self) -> None:
        """Leave it to another owner to free the matrix."""
        self._ownership.disown()

    def check_alive(self) -> None:
        """Raise :class:`~alchemist_ray.errors.FreedMatrixError` if the matrix was freed through this handle."""
        self._ownership.check()

    def reference(self) -> MatrixReference:
        """Return the reference that stands for the matrix on the wire."""
        self.check_alive()
        return MatrixReference(self.matrix_id)

    def __copy__(self) -> Self:
        twin = type(self)(self.matrix_id, self.spec, self.address, owned=False, session=self._session)
        twin._ownership = self._ownership
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        self.check_alive()
        return type(self), (self.matrix_id, self.spec, self.address, False)

    # --- arithmetic ---------------------------------------------------------------------------------------------------

    @property
    def session(self) -> Computes:
        """The session that runs the tasks of this handle.

        Raises
        ------
        DetachedHandleError
            If the handle has left the process of its session.
        """
        if self._session is None:
            raise DetachedHandleError
        return self._session

    def __add__(self, other: Any) -> Any:
        return arithmetic.elementwise(self, "add", other)

    def __radd__(self, other: Any) -> Any:
        return arithmetic.elementwise(self, "add", other, swapped=True)

    def __sub__(self, other: Any) -> Any:
        return arithmetic.elementwise(self, "subtract", other)

    def __rsub__(self, other: Any) -> Any:
        return arithmetic.elementwise(self, "subtract", other, swapped=True)

    def __mul__(self, other: Any) -> Any:
        return arithmetic.elementwise(self, "multiply", other)

    def __rmul__(self, other: Any) -> Any:
        return arithmetic.elementwise(self, "multiply", other, swapped=True)

    def __truediv__(self, other: Any) -> Any:
        return arithmetic.elementwise(self, "divide", other)

    def __rtruediv__(self, other: Any) -> Any:
        return arithmetic.elementwise(self, "divide", other, swapped=True)

    def __matmul__(self, other: Any) -> Any:
        return arithmetic.product(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return arithmetic.product(self, other, swapped=True)

    def __neg__(self) -> Any:
        return arithmetic.run(self, "elementwise", operation="negative")

    def __abs__(self) -> Any:
        return arithmetic.run(self, "elementwise", operation="absolute")

    def astype(self, dtype: npt.DTypeLike) -> Any:
        """Return the matrix with elements of `dtype`, one of :data:`.DTYPES`, in the same layout."""
        return arithmetic.run(self, "astype", dtype=np.dtype(dtype).name)

    def conj(self) -> Any:
        """Return the complex conjugate, in the same layout."""
        return arithmetic.run(self, "conj")

    @property
    def T(self) -> Any:
        """The transpose, shape (n, m); every element stays on its worker."""
        return arithmetic.run(self, "transpose")

    @property
    def H(self) -> Any:
        """The conjugate transpose, shape (n, m); every element stays on its worker."""
        return arithmetic.run(self, "transpose", conjugate=True)

    def relayout(self, layout: LayoutLike, **options: Unpack[LayoutOptions]) -> Any:
        """Return the same matrix in another layout; the workers exchange its elements.

        Parameters
        ----------
        layout : str, Layout or LayoutChoice
            Name of the distribution pair, e.g. ``"STAR_VR"``, or a whole layout.
        **options
            ``block_size``, ``grid``, ``align``: see :class:`.LayoutOptions`.

        Raises
        ------
        LayoutError
            If the layout does not exist, or does not fit the workers.
        MatrixMemoryError
            If the workers have no room for a second copy.
        """
        return arithmetic.run(self, "relayout", layout=LayoutChoice.of(layout, **options).to_wire())

    def sum(self, axis: int | None = None) -> Any:
        """Return the sum of all elements, or a handle of the sums along `axis`: shape (1, n) for 0, (m, 1) for 1."""
        return arithmetic.run(self, "sum", axis=axis)

    def norm(self, ord: str | int | float = "fro") -> float:  # noqa: A002 - the name that NumPy and SciPy have for it
        """Return a norm: "fro", 1 (largest column sum), inf (largest row sum) or "max" (largest element)."""
        norm: float = arithmetic.run(self, "norm", ord=ord)
        return norm

    # --- files on the server's host -----------------------------------------------------------------------------------
    # A file appears, or replaces an old one, when it is complete; if anything fails, the old file stays as it was.

    def write_hdf5(self, path: Path, dataset: str, *, overwrite: bool = False) -> str:
        """Have the workers write the matrix to a dataset of an HDF5 file; other datasets of the file stay.

        Parameters
        ----------
        path : str
            The file, on the server's host, in one of the directories that the server's owner has named.
        dataset : str
            Name of the dataset, e.g. ``"group/name"``.
        overwrite : bool
            Whether to replace a dataset of that name.

        Returns
        -------
        str
            The absolute path on the server's host.

        Raises
        ------
        FileRefusedError
            If the path lies outside the server's directories.
        FileWriteError
            If the dataset exists and `overwrite` is False, or the disk is full.
        """
        return self._write("write_hdf5", path, overwrite, dataset=dataset)

    def write_npy(self, path: Path, *, overwrite: bool = False) -> str:
        """Have the workers write the matrix to a ``.npy`` file; see :meth:`write_hdf5`.

        Parameters
        ----------
        path : str
            The file, on the server's host.
        overwrite : bool
            Whether to replace an existing file.
        """
        return self._write("write_npy", path, overwrite)

    def write_zarr(
        self,
        path: Path,
        array: str = "",
        *,
        chunks: tuple[int, int] | None = None,
        compression: str | None = "zstd",
        overwrite: bool = False,
    ) -> str:
        """Have the workers write the matrix to a Zarr store, a directory; see :meth:`write_hdf5`.

        Parameters
        ----------
        path : str
            The store, on the server's host.
        array : str
            Name of the array in the store; empty if the store is the array.
        chunks : (int, int), optional
            Rows and columns of a chunk; by default some MiB of whole rows.
        compression : str or None
            ``"zstd"`` or None.
        overwrite : bool
            Whether to replace an existing array.
        """
        cut = None if chunks is None else list(chunks)
        return self._write("write_zarr", path, overwrite, array=array, chunks=cut, compression=compression)

    def write_parquet(
        self,
        path: Path,
        columns: Sequence[str] | None = None,
        *,
        compression: str | None = "snappy",
        overwrite: bool = False,
    ) -> str:
        """Have the workers write the matrix as Parquet, a directory with one file each; see :meth:`write_hdf5`.

        Parameters
        ----------
        path : str
            The directory, on the server's host.
        columns : sequence of str, optional
            Names of the columns; by default c0, c1, ...
        compression : str or None
            One of Parquet's: ``"snappy"``, ``"zstd"``, ``"gzip"`` and so on.
        overwrite : bool
            Whether to replace an existing directory.
        """
        names = None if columns is None else list(columns)
        return self._write("write_parquet", path, overwrite, columns=names, compression=compression)

    def _write(self, task: str, path: Path, overwrite: bool, **arguments: Any) -> str:
        return write_file(self.session, task, self, path, overwrite=overwrite, **arguments)
