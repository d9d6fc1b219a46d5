"""The part of reading and writing matrices that all file formats share.

A format provides a :class:`Source`, which knows the shape and the type of the matrix in a file and reads slabs of it,
and a function that writes a slab. This module does the rest: it checks that every rank opened the same file, allocates
the matrix, moves the slabs (:mod:`alchemist_ray.mpi_backend.matrices.row_slabs`) and reports progress to the caller.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import FileContentError
from alchemist_ray.layouts.choice import LayoutChoice
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.files.element_types import NUMBERS, convert, matrix_type
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.row_slabs import Access, Report, SlabStream
from alchemist_ray.mpi_backend.matrices.slab_schedules import FileSlab, Schedule, schedule_for

Array = npt.NDArray[Any]


class Source(ABC):
    """A matrix in an open file, as one rank sees it.

    Parameters
    ----------
    path : str
        Path as the caller gave it, for messages.
    shape : tuple of int
        Shape of the array in the file; a vector becomes a matrix of one column.
    dtype : dtype
        Type of its elements.
    chunk : tuple of int
        Shape of the smallest block that the file is read by.

    Raises
    ------
    FileContentError
        If the array is not a matrix of numbers.
    """

    def __init__(self, path: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunk: tuple[int, ...]) -> None:
        if dtype.kind not in NUMBERS:
            raise FileContentError(path, f"its elements are of type {dtype}, which is not numeric")
        if len(shape) not in (1, 2):
            raise FileContentError(path, f"it has {len(shape)} dimensions (shape {shape}), but a matrix has 2")
        self.path = path
        self.shape = (shape[0], shape[1] if len(shape) == 2 else 1)
        self.chunk = (chunk[0], chunk[1] if len(chunk) == 2 else 1)
        self.dtype = dtype

    def schedule(self, dtype: np.dtype[Any], size: int) -> Schedule:
        """Return which slabs each of `size` ranks reads, for a matrix of `dtype`. Local."""
        return schedule_for(self.shape, self.chunk, max(self.dtype.itemsize, dtype.itemsize), size)

    def read(self, slab: FileSlab, out: Array) -> None:
        """Fill `out`, a C-ordered array with the shape of the slab and the type of the matrix. Local."""
        if out.dtype == self.dtype:
            self.fetch(slab, out)
        else:
            raw = np.empty(slab.shape, self.dtype)
            self.fetch(slab, raw)
            convert(self.path, raw, out)

    @abstractmethod
    def fetch(self, slab: FileSlab, out: Array) -> None:
        """Fill `out`, a C-ordered array with the shape of the slab and the type of the file. Local."""

    @abstractmethod
    def close(self) -> None:
        """Close the file. Local."""

    def signature(self) -> tuple[Any, ...]:
        """Return the properties that must be the same on all ranks."""
        return self.shape, self.dtype.str, self.chunk


def read_matrix(
    ctx: TaskContext, open_source: Callable[[], Source], layout: dict[str, Any], dtype: str | None
) -> DistMatrix:
    """Read the matrix whose file `open_source` opens on each rank. Collective over comm.

    Parameters
    ----------
    ctx : TaskContext
        Context of the task.
    open_source : callable
        Opens the file on this rank; may raise any error.
    layout : dict
        A :class:`~alchemist_ray.layouts.choice.LayoutChoice` in wire form.
    dtype : str or None
        Type of the matrix; None means that of the file.

    Raises
    ------
    FileContentError
        If a rank sees a different file than rank 0, or the file is broken.
    LayoutError, ArgumentValueError, MatrixMemoryError
        If the layout or the type does not fit, or the workers have not enough memory.
    """
    choice = LayoutChoice.from_wire(layout)
    with contextlib.ExitStack() as stack:
        with Agreement(ctx.comm):
            source = open_source()
            stack.callback(source.close)
        _check_same(ctx.comm, source)
        element = matrix_type(ctx.task, source.path, source.dtype, dtype)
        chosen = choice.resolve(source.shape, ctx.comm.size)
        with Agreement(ctx.comm):
            A = ctx.empty(source.shape, element, chosen)
            stream = SlabStream(A, source.schedule(element, ctx.comm.size))
        stream.fill(source.read, _report(ctx, A, f"reading {Path(source.path).name}"), ctx.check_cancelled)
    return A


def _check_same(comm: MPI.Comm, source: Source) -> None:
    """Check that all ranks see the same file. Collective over comm."""
    expected = comm.bcast(source.signature())
    with Agreement(comm):
        if source.signature() != expected:
            raise FileContentError(
                source.path, "this rank sees a different file than rank 0: is the directory shared by all hosts?"
            )


def write_slabs(ctx: TaskContext, A: DistMatrix, path: str, schedule: Schedule, write: Access) -> None:
    """Pass the slabs of `A` to `write`. Collective over comm.

    Raises
    ------
    PeerFailedError
        If `write` failed on another rank; the rank on which it failed raises the error of `write`.
    """
    with Agreement(ctx.comm):
        stream = SlabStream(A, schedule)
    stream.drain(write, _report(ctx, A, f"writing {Path(path).name}"), ctx.check_cancelled)


def _report(ctx: TaskContext, A: DistMatrix, text: str) -> Report:
    def report(done: int, total: int) -> None:
        ctx.progress(A.nbytes * (done / total), A.nbytes, text)

    return report
