"""Gather whole matrices on one rank or on every rank, and distribute them, with one message per rank.

For large matrices :meth:`.DistMatrix.relayout` does the same in bounded memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts import tiling
from alchemist_ray.mpi_backend.ali import DistMatrix

Array = npt.NDArray[Any]

ROOT = 0
"""The rank that gathers and distributes whole matrices."""


def gathered(A: DistMatrix) -> Array:
    """Return the whole of `A`, Fortran-ordered, in new memory on :data:`ROOT`; an empty array elsewhere. Collective."""
    comm, layout = A.comm, A.layout
    if layout.local_shape(A.shape, ROOT) == A.shape:
        return _copied(A.local) if comm.rank == ROOT else np.empty((0, 0), A.dtype, "F")
    if comm.rank != ROOT:
        mine = _bytes_of(A.local if layout.is_source(comm.rank) else A.local[:0])
        comm.Gatherv([mine, MPI.BYTE], None, ROOT)
        return np.empty((0, 0), A.dtype, "F")
    shapes = _source_shapes(A)
    shapes[ROOT] = (0, 0)  # its own part takes no message
    packed = np.empty(sum(m * n for m, n in shapes), A.dtype)
    sizes = [m * n * A.dtype.itemsize for m, n in shapes]
    comm.Gatherv([packed[:0].view(np.uint8), MPI.BYTE], [packed.view(np.uint8), sizes, MPI.BYTE], ROOT)
    whole = _assembled(A, packed, shapes)
    if layout.is_source(ROOT):
        tiling.gather(A.local, whole, A.rows, A.cols)
    return whole


def replicated(A: DistMatrix) -> Array:
    """Return the whole of `A`, Fortran-ordered, in new memory on every rank. Collective over comm."""
    if all(A.layout.local_shape(A.shape, rank) == A.shape for rank in range(A.comm.size)):
        return _copied(A.local)
    mine = _bytes_of(A.local if A.layout.is_source(A.comm.rank) else A.local[:0])
    shapes = _source_shapes(A)
    packed = np.empty(sum(m * n for m, n in shapes), A.dtype)
    sizes = [m * n * A.dtype.itemsize for m, n in shapes]
    A.comm.Allgatherv([mine, MPI.BYTE], [packed.view(np.uint8), sizes, MPI.BYTE])
    return _assembled(A, packed, shapes)


def _copied(local: Array) -> Array:
    whole = np.empty(local.shape, local.dtype, "F")
    tiling.copy(whole, local)
    return whole


def _bytes_of(contiguous: Array) -> Array:
    return contiguous.reshape(-1).view(np.uint8)


def _source_shapes(A: DistMatrix) -> list[tuple[int, int]]:
    """Return the shapes of the blocks that the ranks send. Local."""
    layout = A.layout
    return [layout.local_shape(A.shape, r) if layout.is_source(r) else (0, 0) for r in range(A.comm.size)]


def _assembled(A: DistMatrix, packed: Array, shapes: list[tuple[int, int]]) -> Array:
    """Return the matrix, Fortran-ordered, from the blocks of all ranks, packed one after another. Local."""
    whole, layout, first = np.empty(A.shape, A.dtype, "F"), A.layout, 0
    counts = [m * n for m, n in shapes]
    for rank, (shape, count) in enumerate(zip(shapes, counts, strict=True)):
        if count:
            rows, cols = layout.part(A.shape, rank)
            tiling.gather(packed[first : first + count].reshape(shape), whole, rows, cols)
        first += count
    return whole


def deal(target: DistMatrix, whole: Array | None) -> None:
    """Fill `target` from the matrix `whole` of :data:`ROOT`; other ranks pass None. Collective over comm."""
    comm, layout = target.comm, target.layout
    if whole is None:
        comm.Scatterv(None, [_bytes_of(target.local), MPI.BYTE], ROOT)
        return
    if comm.size == 1:
        tiling.copy(target.local, whole)
        return
    shapes = layout.local_shapes(target.shape).tolist()
    shapes[ROOT] = (0, 0)  # its own part takes no message
    counts = [m * n for m, n in shapes]
    packed = np.empty(sum(counts), target.dtype)
    first = 0
    for rank, (shape, count) in enumerate(zip(shapes, counts, strict=True)):
        if count:
            rows, cols = layout.part(target.shape, rank)
            tiling.scatter(whole, packed[first : first + count].reshape(shape), rows, cols)
        first += count
    sent = [packed.view(np.uint8), [count * target.dtype.itemsize for count in counts]]
    comm.Scatterv([*sent, MPI.BYTE], [target.local.reshape(-1)[:0].view(np.uint8), MPI.BYTE], ROOT)
    tiling.scatter(whole, target.local, target.rows, target.cols)
