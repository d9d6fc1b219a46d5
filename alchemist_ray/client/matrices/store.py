"""The matrices of a session: sent and fetched, whole or block by block."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.group import GroupClient
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.writer import MatrixWriter
from alchemist_ray.client.progress import transfer_bar
from alchemist_ray.client.transfer.times import print_times_of
from alchemist_ray.client.workers import SessionWorkers
from alchemist_ray.errors import InvalidArrayError, LayoutError
from alchemist_ray.layouts.choice import LayoutChoice
from alchemist_ray.layouts.spec import MatrixSpec, as_array, as_matrix, check_dtype, check_shape, converted

Array = npt.NDArray[Any]

RESIDENT_BYTES = 32 * 2**20
"""How much of the workers' memory may count as this process's while it sends a matrix block by block."""


class MatrixStore:
    """Sends matrices to the workers of a session, and fetches them.

    Parameters
    ----------
    workers : SessionWorkers
        The workers of the session.

    Attributes
    ----------
    show_progress : bool or None
        Whether long transfers show a progress bar; None: if stderr is a terminal.
    """

    def __init__(self, workers: SessionWorkers) -> None:
        self._workers = workers
        self.show_progress: bool | None = None

    def send(self, matrix: npt.ArrayLike, choice: LayoutChoice, print_times: bool) -> MatrixHandle:
        """Send an array."""
        with self._workers.lock:
            array = as_matrix(matrix)
            group = self._workers.group()
            spec = _spec(group, (array.shape[0], array.shape[1]), array.dtype, choice)
            started = time.perf_counter()
            with self._workers.watching(), transfer_bar("Sending", spec.nbytes, self.show_progress) as meter:
                handle, times = group.send(spec, array, meter)
            if print_times:
                print_times_of("Sending array data to Alchemist", time.perf_counter() - started, times)
            return handle

    def send_sparse(self, matrix: Any, choice: LayoutChoice, print_times: bool) -> MatrixHandle:
        """Send a sparse matrix of SciPy's."""
        if choice not in (LayoutChoice("MC_MR"), LayoutChoice("VC_STAR")):  # MC_MR is the default of the caller
            raise LayoutError("a sparse matrix is always distributed by rows, as VC_STAR: omit layout")
        with self._workers.lock:
            group = self._workers.group()
            started = time.perf_counter()
            with self._workers.watching(), transfer_bar("Sending", matrix.nnz * 16, self.show_progress) as meter:
                handle, times = group.send_sparse(matrix, meter)
            if print_times:
                print_times_of("Sending sparse matrix to Alchemist", time.perf_counter() - started, times)
            return handle

    def send_blocks(
        self,
        blocks: Iterator[npt.ArrayLike],
        shape: tuple[int, int] | None,
        dtype: npt.DTypeLike | None,
        choice: LayoutChoice,
    ) -> MatrixHandle:
        """Send a matrix that comes as blocks of rows, one after the other."""
        if shape is None:
            raise InvalidArrayError(
                "a matrix that comes as an iterator of row blocks needs its shape: send_matrix(blocks, shape=(m, n)). "
                "If the shape is unknown, collect the blocks first, or write them with matrix_writer()"
            )
        m, n = check_shape(shape)
        first = np.atleast_2d(as_array(next(blocks, np.empty((0, n)))))
        writer = self.writer((m, n), first.dtype if dtype is None else dtype, choice)
        try:
            with transfer_bar("Sending", writer.spec.nbytes, self.show_progress) as meter:
                row = forgotten = 0
                for block in _chain(first, blocks):
                    if block.ndim != 2 or block.shape[1] != n or row + block.shape[0] > m:
                        raise InvalidArrayError(
                            f"a block of shape {block.shape} at row {row} does not fit into a matrix of shape {(m, n)}"
                        )
                    with self._workers.watching():
                        writer.write(block if dtype is None else converted(block, writer.dtype), row=row, meter=meter)
                    row += block.shape[0]
                    if (row - forgotten) * n * writer.dtype.itemsize >= RESIDENT_BYTES:
                        writer.forget_pages()
                        forgotten = row
            if row < m:
                raise InvalidArrayError(f"the blocks have {row} rows together, but the matrix needs {m}")
            return writer.close()
        except BaseException:
            writer.drop()
            raise

    def fetch(self, handle: MatrixHandle, out: Array | None, print_times: bool) -> Any:
        """Fetch all of a matrix."""
        with self._workers.lock:
            group = self._workers.group()
            started = time.perf_counter()
            with self._workers.watching(), transfer_bar("Fetching", handle.nbytes, self.show_progress) as meter:
                fetched, times = group.fetch(handle, out, meter)
            if print_times:
                print_times_of("Fetching data from Alchemist", time.perf_counter() - started, times)
            return fetched

    def writer(self, shape: tuple[int, int], dtype: npt.DTypeLike, choice: LayoutChoice) -> MatrixWriter:
        """Make room for a matrix; return the writer of its parts."""
        with self._workers.lock:
            group = self._workers.group()
            spec = _spec(group, check_shape(shape), check_dtype(dtype), choice)
            with self._workers.watching():
                return MatrixWriter(group.create(spec))


def _spec(group: GroupClient, shape: tuple[int, int], dtype: np.dtype[Any], choice: LayoutChoice) -> MatrixSpec:
    return MatrixSpec(shape, dtype, choice.resolve(shape, group.address.size))


def _chain(first: Array, blocks: Iterable[npt.ArrayLike]) -> Iterator[Array]:
    yield first
    for block in blocks:
        yield np.atleast_2d(as_array(block))
