"""BLACS contexts for the ranks of an mpi4py communicator, and array descriptors for distributed matrices.

Local blocks are C-ordered, but ScaLAPACK wants them Fortran-ordered. A row-major block-cyclic A on an r x c grid is,
byte for byte, the column-major transpose of A on the transposed c x r grid. So this module always describes the
transpose: the rank at ``(i, j)`` of the layout sits at ``(j, i)`` of its BLACS grid, and the descriptor of an m x n
matrix in blocks of mb x nb says n x m in blocks of nb x mb.

Contexts are cached in an MPI attribute of the communicator: one for each arrangement of its ranks. They are released
when the communicator is freed.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import LayoutError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix
from alchemist_ray.mpi_backend.scalapack.loader import libraries

_DENSE = 1  # DTYPE_ of a descriptor
_LARGEST_BLOCK = 2**31 - 1  # elements that a 32-bit local index can address


@dataclass
class _Contexts:
    """The BLACS contexts of one communicator, keyed by the places of the ranks on the grid."""

    system_handle: int
    by_places: dict[tuple[tuple[int, ...], ...], int] = field(default_factory=dict)

    def release(self) -> None:
        for context in self.by_places.values():
            libraries().function("Cblacs_gridexit")(ctypes.c_int(context))
        libraries().function("Cfree_blacs_system_handle")(ctypes.c_int(self.system_handle))
        self.by_places.clear()


_keyval = MPI.KEYVAL_INVALID


def _attribute_key() -> int:
    global _keyval
    if _keyval == MPI.KEYVAL_INVALID:
        _keyval = MPI.Comm.Create_keyval(delete_fn=lambda comm, keyval, contexts: contexts.release())
    return _keyval


def places(layout: Layout) -> npt.NDArray[np.int32]:
    """Return which rank holds the block at each position: an array of (row positions, column positions). Local.

    Raises
    ------
    LayoutError
        If the layout gives one block to several ranks, or no block to some rank: then it does not form a BLACS grid.
    """
    grid = layout.grid
    if layout.distinct_owners != grid.size:
        raise LayoutError(f"ScaLAPACK needs each block on exactly one rank and a block on each rank, unlike {layout}")
    cyclic = Layout(layout.pair, grid, (1, 1))
    where = {rank: cyclic.part((grid.size, grid.size), rank) for rank in range(grid.size)}
    nprow, npcol = where[0][0].stride, where[0][1].stride
    ranks = np.empty((nprow, npcol), np.int32)
    for rank, (rows, cols) in where.items():
        ranks[rows.position, cols.position] = rank
    return ranks


def context(comm: MPI.Comm, layout: Layout) -> int:
    """Return the BLACS context of the transposed grid of `layout`. Collective over comm at its first use."""
    contexts = _contexts(comm)
    ranks = places(layout)
    key = tuple(map(tuple, ranks.tolist()))
    if key not in contexts.by_places:
        contexts.by_places[key] = _gridmap(contexts.system_handle, ranks)
    return contexts.by_places[key]


def _contexts(comm: MPI.Comm) -> _Contexts:
    known = comm.Get_attr(_attribute_key())
    if isinstance(known, _Contexts):
        return known
    made = _Contexts(_system_handle(comm))
    comm.Set_attr(_attribute_key(), made)
    return made


def _system_handle(comm: MPI.Comm) -> int:
    integer = MPI._sizeof(MPI.Comm) == ctypes.sizeof(ctypes.c_int)
    handle_type: Any = ctypes.c_int if integer else ctypes.c_void_p
    handle = handle_type.from_address(MPI._addressof(comm))
    return int(libraries().function("Csys2blacs_handle", ctypes.c_int)(handle))


def _gridmap(system_handle: int, ranks: npt.NDArray[np.int32]) -> int:
    """Make a context in which ``ranks[i, j]`` sits at row j and column i."""
    rows, cols = ranks.shape
    usermap = np.ascontiguousarray(ranks)  # its C order is the Fortran order of the transposed map
    made = ctypes.c_int(system_handle)
    libraries().function("Cblacs_gridmap")(
        ctypes.byref(made), ctypes.c_void_p(usermap.ctypes.data), *map(ctypes.c_int, (cols, cols, rows))
    )
    return made.value


def release(comm: MPI.Comm) -> None:
    """Release the BLACS contexts of `comm`; freeing `comm` does the same. Collective over comm."""
    if comm.Get_attr(_attribute_key()) is not None:
        comm.Delete_attr(_attribute_key())


def descriptor(A: DistMatrix) -> npt.NDArray[np.int32]:
    """Return the ScaLAPACK descriptor of the transpose of `A`. Collective over its ranks at first use of its grid.

    Raises
    ------
    LayoutError
        If the layout of `A` does not form a BLACS grid (see :func:`places`), or a local block has more elements than
        the 32-bit indices of ScaLAPACK can address. Raised on every rank.
    """
    layout, (m, n) = A.layout, A.shape
    largest = max(int(np.prod(layout.local_shape(A.shape, rank))) for rank in range(layout.grid.size))
    if largest > _LARGEST_BLOCK:
        raise LayoutError(
            f"a rank would hold {largest:,} elements of a {m}x{n} matrix, but ScaLAPACK can address only "
            f"{_LARGEST_BLOCK:,}: use more workers"
        )
    (mb, nb), (row_source, col_source) = layout.block, layout.align
    lld = max(1, A.cols.size)
    return np.array(
        [_DENSE, context(A.comm, layout), n, m, nb, mb, col_source, row_source, lld],
        np.int32,
    )
