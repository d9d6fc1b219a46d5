"""A distributed matrix as the ranks of a group see it.

A :class:`DistMatrix` is four things: which ranks (`comm`), where each element lies (`layout`), how large it is
(`shape`, `dtype`) and this rank's elements (`local`, C-ordered). It owns no policy: where its memory comes from is
the `allocate` function that it was made with and that every matrix made from it inherits, so a task's results land
in the worker's arena without the task knowing that there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray import tiling
from alchemist_ray.errors import LayoutError
from alchemist_ray.layout import AxisPart, Layout

Array = npt.NDArray[Any]
Allocate = Callable[[tuple[int, int], np.dtype[Any]], Array]


def _allocate_plain(shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    return np.empty(shape, dtype)


class DistMatrix:
    """A matrix distributed over the ranks of a communicator.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks, as many as `layout` has.
    shape : (int, int)
        Rows and columns of the whole matrix.
    layout : Layout
        Which rank holds which element.
    local : ndarray
        This rank's elements, C-ordered, of shape ``layout.local_shape(shape, comm.rank)``.
    allocate : callable
        ``allocate(shape, dtype)`` makes the local blocks of matrices derived from this one.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        shape: tuple[int, int],
        layout: Layout,
        local: Array,
        allocate: Allocate = _allocate_plain,
    ) -> None:
        if layout.grid.size != comm.size:
            raise LayoutError(f"layout {layout} wants {layout.grid.size} ranks, the communicator has {comm.size}")
        self.comm = comm
        self.shape = shape
        self.layout = layout
        self.rows, self.cols = layout.part(shape, comm.rank)
        expected = (self.rows.size, self.cols.size)
        if local.shape != expected or not local.flags.c_contiguous:
            raise LayoutError(
                f"rank {comm.rank} holds a C-ordered block of {expected} of a {shape} matrix in {layout}, "
                f"not one of {local.shape}"
            )
        self.local = local
        self.allocate = allocate

    @classmethod
    def empty(
        cls,
        comm: MPI.Comm,
        shape: tuple[int, int],
        dtype: npt.DTypeLike,
        layout: Layout,
        allocate: Allocate = _allocate_plain,
    ) -> Self:
        """Return a matrix with arbitrary contents. Local."""
        local = allocate(layout.local_shape(shape, comm.rank), np.dtype(dtype))
        return cls(comm, shape, layout, local, allocate)

    @classmethod
    def from_global(cls, comm: MPI.Comm, A: Array, layout: Layout, allocate: Allocate = _allocate_plain) -> Self:
        """Return `A`, which every rank passes in whole, as a distributed matrix. Local."""
        matrix = cls.empty(comm, (A.shape[0], A.shape[1]), A.dtype, layout, allocate)
        tiling.scatter(A, matrix.local, matrix.rows, matrix.cols)
        return matrix

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.local.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix, each element counted once."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def new(self, shape: tuple[int, int], layout: Layout | str, dtype: npt.DTypeLike | None = None) -> DistMatrix:
        """Return an uninitialised matrix on the same ranks, from the same memory. Local."""
        if isinstance(layout, str):
            layout = Layout.of(layout, shape, self.comm.size)
        return DistMatrix.empty(self.comm, shape, self.dtype if dtype is None else dtype, layout, self.allocate)

    def relayout(self, layout: Layout | str) -> DistMatrix:
        """Return the same matrix in another layout; the matrix itself if it is in that layout. Collective over comm.

        Parameters
        ----------
        layout : Layout or str
            The layout, or the name of a pair, which gets the default grid and block for this shape.
        """
        if isinstance(layout, str):
            layout = Layout.of(layout, self.shape, self.comm.size)
        if layout == self.layout:
            return self
        target = self.new(self.shape, layout)
        _exchange(self, target)
        return target

    def to_global(self) -> Array:
        """Return the whole matrix on every rank. Collective over comm."""
        return self.relayout("STAR_STAR").local

    def __repr__(self) -> str:
        m, n = self.shape
        return f"DistMatrix({m}x{n} {self.dtype}, {self.layout}, local {self.local.shape} on rank {self.comm.rank})"


def _shared(mine: AxisPart, theirs: AxisPart) -> npt.NDArray[np.int64]:
    """Return the local indices, on the side of `mine`, of what both parts hold."""
    i = mine.indices()
    return np.flatnonzero(i // theirs.block % theirs.stride == theirs.position) if theirs.extent else i[:0]


def _exchange(source: DistMatrix, target: DistMatrix) -> None:
    """Copy `source` into `target`, which has the same shape and ranks, in one Alltoallv. Collective over comm."""
    comm, shape = source.comm, source.shape
    outgoing, incoming = [], []
    for rank in range(comm.size):
        rows, cols = target.layout.part(shape, rank)
        sends = source.layout.is_source(comm.rank)
        outgoing.append(np.ix_(_shared(source.rows, rows), _shared(source.cols, cols)) if sends else None)
        rows, cols = source.layout.part(shape, rank)
        sends = source.layout.is_source(rank)
        incoming.append(np.ix_(_shared(target.rows, rows), _shared(target.cols, cols)) if sends else None)
    packed = [source.local[where].ravel() for where in outgoing if where is not None]
    sendbuf = np.concatenate(packed) if packed else np.empty(0, source.dtype)
    sendcounts = [_area(where) for where in outgoing]
    recvcounts = [_area(where) for where in incoming]
    recvbuf = np.empty(sum(recvcounts), target.dtype)
    itemsize = source.dtype.itemsize
    comm.Alltoallv(
        [sendbuf, [n * itemsize for n in sendcounts], _displacements(sendcounts, itemsize), MPI.BYTE],
        [recvbuf, [n * itemsize for n in recvcounts], _displacements(recvcounts, itemsize), MPI.BYTE],
    )
    start = 0
    for where, count in zip(incoming, recvcounts, strict=True):
        if where is not None and count:
            target.local[where] = recvbuf[start : start + count].reshape(where[0].size, where[1].size)
        start += count


def _area(where: tuple[Array, ...] | None) -> int:
    return 0 if where is None else where[0].size * where[1].size


def _displacements(counts: list[int], itemsize: int) -> list[int]:
    return [0, *(int(n) * itemsize for n in np.cumsum(counts)[:-1])]
