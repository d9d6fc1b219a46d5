"""A distributed matrix as the ranks of a group see it.

A :class:`DistMatrix` has four parts: the ranks (`comm`), the place of each element (`layout`), the size (`shape`,
`dtype`) and this rank's elements (`local`, C-ordered). It gets memory from its `allocate` function, and every matrix
made from it inherits that function. So the results of a task lie in the worker's arena, although the task does not know
the arena.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import LayoutError
from alchemist_ray.layouts import tiling
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.exchange import ExchangeSide, exchange

Array = npt.NDArray[Any]
Allocate = Callable[[tuple[int, int], np.dtype[Any]], Array]


def _allocate_plain(shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    return np.empty(shape, dtype)


class DistMatrix:
    """A matrix distributed over the ranks of a communicator.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks; their number must be that of `layout`.
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
            raise LayoutError(f"layout {layout} needs {layout.grid.size} ranks, but the communicator has {comm.size}")
        self.comm = comm
        self.shape = shape
        self.layout = layout
        self.rows, self.cols = layout.part(shape, comm.rank)
        expected = (self.rows.size, self.cols.size)
        if local.shape != expected or not local.flags.c_contiguous:
            raise LayoutError(
                f"rank {comm.rank} must hold a C-ordered block of shape {expected} of a {shape} matrix in {layout}, "
                f"but the block has shape {local.shape}"
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
        if layout.grid.size != comm.size:  # first, as local_shape() needs a rank that exists in the layout
            raise LayoutError(f"layout {layout} needs {layout.grid.size} ranks, but the communicator has {comm.size}")
        local = allocate(layout.local_shape(shape, comm.rank), np.dtype(dtype))
        return cls(comm, shape, layout, local, allocate)

    @classmethod
    def from_global(cls, comm: MPI.Comm, A: Array, layout: Layout, allocate: Allocate = _allocate_plain) -> Self:
        """Return `A` as a distributed matrix; every rank passes the whole array. Local."""
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
        """Return an uninitialised matrix on the same ranks, allocated in the same way. Local."""
        if isinstance(layout, str):
            layout = Layout.of(layout, shape, self.comm.size)
        return DistMatrix.empty(self.comm, shape, self.dtype if dtype is None else dtype, layout, self.allocate)

    def relayout(self, layout: Layout | str) -> DistMatrix:
        """Return the matrix in another layout; the matrix itself if it already has that layout. Collective over comm.

        Beyond the two matrices, a few MiB of memory are needed on every rank.

        Parameters
        ----------
        layout : Layout or str
            The layout, or the name of a pair, which stands for the default grid and block for this shape.

        Raises
        ------
        LayoutError
            If the pair does not exist, or the layout is for another number of ranks.
        MatrixMemoryError
            If this rank has no room for its block of the result.
        PeerFailedError
            If another rank has no room for its block.
        """
        layout = self._layout_of(layout, self.shape)
        return self if layout == self.layout else self._exchanged(self.shape, layout, transposed=False)

    def transpose(self, layout: Layout | str) -> DistMatrix:
        """Return the transpose in any layout, by one exchange. Collective over comm.

        Parameters
        ----------
        layout : Layout or str
            The layout of the result, or the name of a pair, which stands for the default grid and block for its shape.
            With ``A.layout.transposed()`` each element stays on its rank.

        Raises
        ------
        LayoutError, MatrixMemoryError, PeerFailedError
            As :meth:`relayout`.
        """
        shape = self.shape[1], self.shape[0]
        return self._exchanged(shape, self._layout_of(layout, shape), transposed=True)

    def _layout_of(self, layout: Layout | str, shape: tuple[int, int]) -> Layout:
        return Layout.of(layout, shape, self.comm.size) if isinstance(layout, str) else layout

    def _exchanged(self, shape: tuple[int, int], layout: Layout, transposed: bool) -> DistMatrix:
        with Agreement(self.comm):
            target = self.new(shape, layout)
        exchange(
            self.comm,
            ExchangeSide(0, self.shape, self.layout, self.local, transposed),
            ExchangeSide(1, target.shape, target.layout, target.local),
        )
        return target

    def to_global(self) -> Array:
        """Return the whole matrix on every rank. Collective over comm."""
        return self.relayout("STAR_STAR").local

    def __repr__(self) -> str:
        m, n = self.shape
        return f"DistMatrix({m}x{n} {self.dtype}, {self.layout}, local {self.local.shape} on rank {self.comm.rank})"
