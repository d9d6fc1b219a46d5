"""The matrices of a session: sent, fetched, written part by part, read from files."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.group import GroupClient
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.hdf5_source import open_dataset
from alchemist_ray.client.matrices.server_files import ReadsFiles
from alchemist_ray.client.matrices.sparse import is_sparse
from alchemist_ray.client.matrices.writer import MatrixWriter
from alchemist_ray.client.progress import transfer_bar
from alchemist_ray.client.transfer.times import print_times_of
from alchemist_ray.errors import InvalidArrayError, LayoutError
from alchemist_ray.layouts.choice import Blocks, GridShape, LayoutChoice
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.layouts.spec import MatrixSpec, as_matrix, check_dtype, check_shape

if TYPE_CHECKING:
    from os import PathLike

Array = npt.NDArray[Any]


RESIDENT_BYTES = 32 * 2**20
"""How much of the workers' memory may count as this process's while it sends a matrix block by block."""


class SessionMatrices(ReadsFiles):
    """The methods of a session that are about matrices."""

    _lock: threading.RLock

    show_progress: bool | None = None
    """Whether long transfers show a progress bar; None: if stderr is a terminal."""

    @abstractmethod
    def _group(self) -> GroupClient:
        """Return the session's workers; raise :class:`~alchemist_ray.errors.NoWorkersError` if it has none."""

    @abstractmethod
    def _watching(self) -> contextlib.AbstractContextManager[None]:
        """Turn the loss of a worker into an error that says what happened."""

    # --- whole --------------------------------------------------------------------------------------------------------

    def send_matrix(
        self,
        matrix: npt.ArrayLike | Iterator[npt.ArrayLike],
        layout: str | Layout = "MC_MR",
        print_times: bool = False,
        *,
        block_size: Blocks | None = None,
        grid: GridShape | None = None,
        align: tuple[int, int] | None = None,
        shape: tuple[int, int] | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> MatrixHandle:
        """Send a matrix to the session's workers.

        Parameters
        ----------
        matrix : array_like, shape (m, n), or iterator of array_like
            Of one of the types float64, float32, complex128, complex64, int64, int32, bool; any strides. Or blocks of
            its rows, one after the other, for a matrix that is larger than this process's memory. Or a sparse matrix of
            SciPy's.
        layout : str or Layout
            How it is to be distributed: the name of a distribution pair, e.g. ``"VC_STAR"``, or a
            :class:`~alchemist_ray.layouts.layout.Layout`. A sparse matrix is always dealt by rows.
        print_times : bool
            Whether to print how long each worker's part took.
        block_size : int or (int, int), optional
            Rows and columns of a block of the layout; by default what suits the shape. 1 is Elemental's distribution.
        grid : (int, int), optional
            Rows and columns of the process grid; by default the most square one.
        align : (int, int), optional
            The positions that get the first block of rows and of columns.
        shape : (int, int), optional
            Of the whole; needed if `matrix` is an iterator.
        dtype : dtype, optional
            Of the whole, if `matrix` is an iterator, and what its blocks are converted to; by default that of the
            first block.

        Returns
        -------
        MatrixHandle
            A :class:`~alchemist_ray.client.matrices.sparse.SparseMatrixHandle` for a sparse matrix.

        Raises
        ------
        InvalidArrayError
            If it is not two-dimensional, or is of another type; or if the blocks do not add up to `shape`.
        LayoutError
            If there is no such layout, or it does not fit the workers.
        MatrixMemoryError
            If the workers have no room for it; nothing has been sent, then.
        """
        choice = LayoutChoice.of(layout, block_size, grid, align)
        if isinstance(matrix, MatrixHandle):
            raise InvalidArrayError("a handle was given where an array is wanted: that matrix is with the workers")
        if isinstance(matrix, Iterator):
            return self._send_blocks(matrix, shape, dtype, choice)
        if is_sparse(matrix):
            return self._send_sparse(matrix, choice, print_times)
        if shape is not None or dtype is not None:
            raise InvalidArrayError(
                "shape and dtype are those of the array itself; give them for an iterator of blocks"
            )
        with self._lock:
            array = as_matrix(matrix)
            group = self._group()
            spec = _spec(group, (array.shape[0], array.shape[1]), array.dtype, choice)
            started = time.perf_counter()
            with self._watching(), transfer_bar("Sending", spec.nbytes, self.show_progress) as meter:
                handle, times = group.send(spec, array, meter)
            if print_times:
                print_times_of("Sending array data to Alchemist", time.perf_counter() - started, times)
            return handle

    def _send_sparse(self, matrix: Any, choice: LayoutChoice, print_times: bool) -> MatrixHandle:
        if choice not in (LayoutChoice("MC_MR"), LayoutChoice("VC_STAR")):  # the first is what nobody has asked for
            raise LayoutError("a sparse matrix is always dealt by rows, as VC_STAR: leave the layout away")
        with self._lock:
            group = self._group()
            started = time.perf_counter()
            with self._watching(), transfer_bar("Sending", matrix.nnz * 16, self.show_progress) as meter:
                handle, times = group.send_sparse(matrix, meter)
            if print_times:
                print_times_of("Sending sparse matrix to Alchemist", time.perf_counter() - started, times)
            return handle

    def _send_blocks(
        self,
        blocks: Iterator[npt.ArrayLike],
        shape: tuple[int, int] | None,
        dtype: npt.DTypeLike | None,
        choice: LayoutChoice,
    ) -> MatrixHandle:
        """Send a matrix that comes as blocks of rows."""
        if shape is None:
            raise InvalidArrayError(
                "a matrix that comes as an iterator of row blocks needs its shape: send_matrix(blocks, shape=(m, n)); "
                "where it is not known, collect the blocks, or write them with matrix_writer()"
            )
        m, n = check_shape(shape)
        first = np.atleast_2d(np.asarray(next(blocks, np.empty((0, n)))))
        writer = self._writer((m, n), first.dtype if dtype is None else dtype, choice)
        try:
            with transfer_bar("Sending", writer.spec.nbytes, self.show_progress) as meter:
                row = forgotten = 0
                for block in _chain(first, blocks):
                    if block.ndim != 2 or block.shape[1] != n or row + block.shape[0] > m:
                        raise InvalidArrayError(
                            f"a block of shape {block.shape} at row {row} does not fit into a matrix of shape {(m, n)}"
                        )
                    with self._watching():
                        writer.write(block if dtype is None else block.astype(dtype, copy=False), row=row, meter=meter)
                    row += block.shape[0]
                    if (row - forgotten) * n * writer.dtype.itemsize >= RESIDENT_BYTES:
                        writer.forget_pages()
                        forgotten = row
            if row < m:
                raise InvalidArrayError(f"the blocks have {row} rows together, but the matrix was to have {m}")
            return writer.close()
        except BaseException:
            writer.drop()
            raise

    def fetch_matrix(self, handle: MatrixHandle, out: Array | None = None, print_times: bool = False) -> Array:
        """Fetch a matrix from the session's workers.

        Parameters
        ----------
        handle : MatrixHandle
            The matrix. A part of it is ``handle[1000:2000, :]``; ``handle.rows()`` gives one block after the other.
        out : ndarray, optional
            Array of its shape and dtype to fill; a new one by default. Filling an array that was used before is several
            times faster, since the first touch of a page costs more than the copy.
        print_times : bool
            Whether to print how long each worker's part took.

        Returns
        -------
        ndarray, shape (m, n)
            Or a ``scipy.sparse.csr_array``, of a sparse matrix.

        Raises
        ------
        ForeignMatrixError, FreedMatrixError
            If the handle is of another session, or freed.
        InvalidArrayError
            If `out` does not fit.
        """
        with self._lock:
            group = self._group()
            started = time.perf_counter()
            with self._watching(), transfer_bar("Fetching", handle.nbytes, self.show_progress) as meter:
                fetched, times = group.fetch(handle, out, meter)
            if print_times:
                print_times_of("Fetching data from Alchemist", time.perf_counter() - started, times)
            return fetched

    # --- part by part -------------------------------------------------------------------------------------------------

    def matrix_writer(
        self,
        shape: tuple[int, int],
        dtype: npt.DTypeLike = np.float64,
        layout: str | Layout = "MC_MR",
        *,
        block_size: Blocks | None = None,
        grid: GridShape | None = None,
        align: tuple[int, int] | None = None,
    ) -> MatrixWriter:
        """Make room for a matrix, to be written part by part from any number of processes.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns.
        dtype : dtype
            Element type.
        layout, block_size, grid, align
            How it is to be distributed; see :meth:`send_matrix`.

        Returns
        -------
        MatrixWriter
            Pickles to other processes; its `close` gives the handle.

        Raises
        ------
        InvalidArrayError, LayoutError
            If there is no such matrix or layout.
        MatrixMemoryError
            If the workers have no room for it.
        """
        return self._writer(check_shape(shape), dtype, LayoutChoice.of(layout, block_size, grid, align))

    def _writer(self, shape: tuple[int, int], dtype: npt.DTypeLike, choice: LayoutChoice) -> MatrixWriter:
        with self._lock:
            group = self._group()
            spec = _spec(group, shape, check_dtype(dtype), choice)
            with self._watching():
                return MatrixWriter(group.create(spec))

    # --- files of this process ----------------------------------------------------------------------------------------

    def send_hdf5(
        self,
        path: str | PathLike[str],
        dataset: str,
        layout: str | Layout = "MC_MR",
        *,
        selection: Any = ...,
        dtype: npt.DTypeLike | None = None,
        block_size: Blocks | None = None,
        grid: GridShape | None = None,
        align: tuple[int, int] | None = None,
    ) -> MatrixHandle:
        """Send a dataset of an HDF5 file on this machine, a block of rows at a time.

        Parameters
        ----------
        path : str
            The file, on this machine; :meth:`read_hdf5` has the workers read one on theirs.
        dataset : str
            Name of the dataset: a matrix, or a vector, which becomes one column.
        selection : optional
            What of the dataset, as one would index it: ``np.s_[:10_000, :]``, or ``np.s_[:, :, 20]`` for a matrix of a
            dataset that has three dimensions.
        layout, block_size, grid, align
            How it is to be distributed; see :meth:`send_matrix`.
        dtype : dtype, optional
            Element type of the matrix; by default the file's, which must be one that matrices have.

        Raises
        ------
        FileMissingError, DatasetMissingError, FileContentError
            If there is no such file, no such dataset, or none that is a matrix.
        InvalidArrayError
            If it is of a type that no matrix has, and `dtype` does not say which to convert to.
        IndexError
            If `selection` does not name a part of the dataset.
        """
        with open_dataset(path, dataset, dtype, selection) as source:
            blocks = source.blocks()
            return self._send_blocks(
                blocks, source.shape, source.dtype, LayoutChoice.of(layout, block_size, grid, align)
            )


def _spec(group: GroupClient, shape: tuple[int, int], dtype: np.dtype[Any], choice: LayoutChoice) -> MatrixSpec:
    return MatrixSpec(shape, dtype, choice.resolve(shape, group.address.size))


def _chain(first: Array, blocks: Iterable[npt.ArrayLike]) -> Iterator[Array]:
    yield first
    for block in blocks:
        yield np.atleast_2d(np.asarray(block))
