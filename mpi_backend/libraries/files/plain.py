"""Files that store elements as memory does, from some offset on: ``.npy``, and HDF5 without chunks.

The ranks read and write such elements in parallel with ``pread`` and ``pwrite``, each at the offsets of its own slabs.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import FileContentError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.files import linux
from alchemist_ray.mpi_backend.libraries.files.access import Source, write_slabs
from alchemist_ray.mpi_backend.libraries.files.directories import refusal
from alchemist_ray.mpi_backend.libraries.files.replacement import writing
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.slab_schedules import FileSlab, schedule_for

Array = npt.NDArray[Any]

_COLUMN_RUN = 16384
"""Bytes of one column that are read at a time if the file is in Fortran order."""

_COPIED_BYTES = 2**20


class PlainSource(Source):
    """An array in a file, element by element.

    Parameters
    ----------
    path : str
        Path of the file as the caller gave it.
    real : Path
        Its resolved path.
    offset : int
        Bytes before the first element.
    shape, dtype
        Shape and type of the array; `dtype` may have either byte order.
    by_columns : bool
        Whether the array is stored by columns (Fortran order).

    Raises
    ------
    FileContentError
        If the file ends before the array does.
    FileRefusedError
        If it cannot be opened.
    """

    def __init__(
        self,
        path: str,
        real: Path,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        by_columns: bool = False,
    ) -> None:
        self._by_columns = by_columns and len(shape) == 2
        chunk = (max(_COLUMN_RUN // max(dtype.itemsize, 1), 1), 1) if self._by_columns else (1, 1)
        super().__init__(path, shape, dtype, chunk)
        self._offset = offset
        try:
            self._fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as failure:
            raise refusal(path, failure) from None
        missing = offset + math.prod(shape) * dtype.itemsize - os.fstat(self._fd).st_size
        if missing > 0:
            self.close()
            raise FileContentError(path, f"it ends early: {missing:,} bytes are missing")

    def fetch(self, slab: FileSlab, out: Array) -> None:
        """Fill `out` from the file. Local."""
        if self._by_columns:
            columns = np.empty(slab.shape[::-1], self.dtype)
            self._fetch_runs(slab.j0, slab.j1, slab.i0, slab.i1, self.shape[0], columns)
            out[...] = columns.T
        else:
            self._fetch_runs(slab.i0, slab.i1, slab.j0, slab.j1, self.shape[1], out)
        if out.dtype == np.bool_:  # in a file any byte other than 0 is true, but a NumPy bool is 0 or 1
            np.not_equal(out.view(np.uint8), 0, out=out)

    def _fetch_runs(self, first: int, last: int, start: int, stop: int, length: int, out: Array) -> None:
        """Fill the rows of `out` with ``[start, stop)`` of the runs ``first .. last-1`` of `length` elements each."""
        if stop - start == length:
            self._pread(first * length, out)
        else:
            for run in range(first, last):
                self._pread(run * length + start, out[run - first])

    def _pread(self, element: int, out: Array) -> None:
        position = self._offset + element * out.itemsize
        view = _bytes_of(out)
        while view:
            try:
                count = os.preadv(self._fd, [view], position)
            except OSError as failure:
                raise FileContentError(self.path, f"it cannot be read: {failure.strerror}") from None
            if count == 0:
                raise FileContentError(self.path, f"it ends early: {len(view):,} bytes of one part are missing")
            position, view = position + count, view[count:]

    def close(self) -> None:
        """Close the file. Local."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def signature(self) -> tuple[Any, ...]:
        """Return the properties that must be the same on all ranks."""
        return *super().signature(), self._offset, self._by_columns


def write_plain(ctx: TaskContext, A: DistMatrix, path: str, staged: Path, offset: int) -> None:
    """Write the elements of `A` by rows to an existing file, from `offset` on, and flush it to the disk. Collective.

    Raises
    ------
    FileWriteError
        If there is not enough space, or the disk fails.
    """
    with contextlib.ExitStack() as stack:
        with Agreement(ctx.comm), writing(path):
            fd = os.open(staged, os.O_WRONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            linux.allocate(fd, *_share(ctx.comm, offset, A.nbytes))

        def write(slab: FileSlab, block: Array) -> None:
            with writing(path):
                _write_slab(fd, slab, block, offset, A.shape[1])

        write_slabs(ctx, A, path, schedule_for(A.shape, (1, 1), A.dtype.itemsize, ctx.comm.size), write)
        with Agreement(ctx.comm), writing(path):
            os.fsync(fd)


def copy_plain(ctx: TaskContext, path: str, source: Path, staged: Path, nbytes: int) -> None:
    """Copy the first bytes of a file to a new one; each rank copies its share. Collective over comm.

    Raises
    ------
    FileWriteError
        If there is not enough space, or a disk fails.
    """
    with Agreement(ctx.comm), writing(path):
        if ctx.comm.rank == 0:
            staged.touch(exist_ok=False)
            os.truncate(staged, nbytes)
    with Agreement(ctx.comm), writing(path), source.open("rb") as old, staged.open("r+b") as new:
        start, length = _share(ctx.comm, 0, nbytes)
        linux.allocate(new.fileno(), start, length)
        for position in range(start, start + length, _COPIED_BYTES):
            piece = os.pread(old.fileno(), min(_COPIED_BYTES, start + length - position), position)
            _pwrite(new.fileno(), memoryview(piece), position)


def _write_slab(fd: int, slab: FileSlab, block: Array, offset: int, n: int) -> None:
    """Write a slab of a matrix of `n` columns."""
    if slab.shape[1] == n:
        _pwrite(fd, _bytes_of(block), offset + slab.i0 * n * block.itemsize)
    else:
        for i in range(slab.i0, slab.i1):
            _pwrite(fd, _bytes_of(block[i - slab.i0]), offset + (i * n + slab.j0) * block.itemsize)


def _share(comm: MPI.Comm, offset: int, nbytes: int) -> tuple[int, int]:
    """Return the offset and the length of this rank's share of a file's bytes."""
    start, stop = (rank * nbytes // comm.size for rank in (comm.rank, comm.rank + 1))
    return offset + start, stop - start


def _bytes_of(contiguous: Array) -> memoryview:
    return contiguous.reshape(-1).view(np.uint8).data


def _pwrite(fd: int, view: memoryview, position: int) -> None:
    while view:
        count = os.pwrite(fd, view, position)
        position, view = position + count, view[count:]
