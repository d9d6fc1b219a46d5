"""Sums along the axes of a matrix, and norms.

A sum over the rows of a matrix is a matrix of a single row, a sum over its columns one of a single column, and it lies
where the columns (rows) that it sums up lie: on all ranks that hold some of them. So where a rank holds whole columns
nothing is exchanged, and otherwise only the ranks that share columns add up what they have. Of several ranks that hold
the same elements one (:meth:`~alchemist_ray.layout.Layout.is_source`) contributes them.

Local sums are NumPy's. Norms are computed in double precision whatever the type, of a tile at a time, so that nothing
of the size of the matrix is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.linalg.checks import allocated

Array = npt.NDArray[Any]
Partial = Callable[[Array], Any]
"""Writes what this rank's elements contribute."""

_TILE = 1 << 16
"""Elements that are converted at a time: half a megabyte, which the cache holds."""

_SAFE = 2.0**-900
"""A sum of squares above this has lost nothing that counts to underflow."""


def collapsed(layout: Layout, axis: int) -> Layout:
    """Return where the sums over `axis` of a matrix in `layout` lie. Local.

    That is, where every rank that holds, or would hold if there were more of it, some of a column (`axis` 0) or row (1)
    has the one element that stands for it.
    """
    if layout.pair == "CIRC_CIRC":
        return layout
    dists, block, align = layout.pair.split("_"), list(layout.block), list(layout.align)
    dists[axis], block[axis], align[axis] = "STAR", 1, 0
    return Layout("_".join(dists), layout.grid, (block[0], block[1]), (align[0], align[1]))


def total(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, axis: int | None) -> Any:
    """Return the sum of all elements or along an axis; see the task :func:`~alchemist_ray.mpi_backend.linalg.sum`."""
    if axis is not None and axis not in (-2, -1, 0, 1):
        raise ArgumentValueError(ctx.task, f"axis must be 0 or 1, or None for the sum of all elements, but is {axis}")
    dtype = np.dtype(np.int64) if A.dtype.kind in "bi" else A.dtype
    if axis is None:
        mine = A.arrays.values if isinstance(A, SparseDistMatrix) else A.local
        return _over_all(ctx, mine.sum(dtype=dtype) if A.layout.is_source(ctx.comm.rank) else dtype.type(0))
    axis %= 2
    if isinstance(A, SparseDistMatrix):
        return _sparse_sums(ctx, A, axis, A.arrays.values, dtype)
    with np.errstate(all="ignore"):
        return _reduced(ctx, A, axis, dtype, lambda out: A.local.sum(axis, dtype, out, keepdims=True))


def _over_all(ctx: TaskContext, mine: Any) -> Any:
    """Return the sum over the ranks of a scalar each. Collective over comm."""
    whole = np.array([mine])
    ctx.comm.Allreduce(MPI.IN_PLACE, whole)
    return whole[0].item()


def _reduced(
    ctx: TaskContext, A: DistMatrix | SparseDistMatrix, axis: int, dtype: npt.DTypeLike, partial: Partial
) -> DistMatrix:
    """Return the row (`axis` 0) or column (1) to which the ranks contribute what `partial` writes. Collective."""
    layout = collapsed(A.layout, axis)
    C = allocated(ctx, (1, A.shape[1]) if axis == 0 else (A.shape[0], 1), dtype, layout)
    whole = layout.pair == A.layout.pair  # who is to have a sum has all that it is of
    if not (whole or A.layout.is_source(ctx.comm.rank)):
        C.local[...] = 0
    elif C.local.size:
        partial(C.local)
    if not whole:
        ranks = ctx.comm.Split((C.rows, C.cols)[1 - axis].position, ctx.comm.rank)
        try:
            ranks.Allreduce(MPI.IN_PLACE, C.local)
        finally:
            ranks.Free()
    return C


def _sparse_sums(ctx: TaskContext, A: SparseDistMatrix, axis: int, values: Array, dtype: np.dtype[Any]) -> DistMatrix:
    """Return the sums along `axis` of a matrix with `values` for the entries of `A`. Collective over comm."""

    def partial(out: Array) -> None:
        local = A.rows_with(values, transposed=axis == 0)
        out.reshape(-1)[...] = local @ np.ones(local.shape[1], dtype)

    return _reduced(ctx, A, axis, dtype, partial)


# --- norms ------------------------------------------------------------------------------------------------------------


def norm(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, order: str | float) -> float:
    """Return a norm of `A`; see the task :func:`~alchemist_ray.mpi_backend.linalg.norm`. Collective over comm."""
    kind = {"fro": "fro", "max": "max", "inf": "inf", 1: "1", math.inf: "inf"}.get(order)
    if kind is None:
        advice = ": for the largest singular value use truncated_svd with k=1" if order in (2, "2") else ""
        raise ArgumentValueError(ctx.task, f"ord must be 'fro', 1, inf or 'max', but is {order!r}{advice}")
    if isinstance(A, SparseDistMatrix):
        A = A.without_duplicates()
    with np.errstate(all="ignore"):
        if kind == "fro":
            return _frobenius(ctx, A)
        if kind == "max":
            return _largest(ctx, A)
        sums = _sums_of_magnitudes(ctx, A, 0 if kind == "1" else 1)
        return _maximum(ctx, sums.local)


def _elements(A: DistMatrix | SparseDistMatrix) -> Array:
    """Return what this rank contributes to something over all elements."""
    if isinstance(A, SparseDistMatrix):
        return A.arrays.values[np.newaxis]
    return A.local if A.layout.is_source(A.comm.rank) else A.local[:0]


def _tiles(local: Array) -> Iterator[tuple[slice, slice]]:
    """Yield slices of rows and of columns that together cover `local`, of at most ``_TILE`` elements each."""
    m, n = local.shape
    width = max(1, min(n, _TILE))
    height = _TILE // width
    for i in range(0, m, height):
        for j in range(0, n, width):
            yield slice(i, min(i + height, m)), slice(j, min(j + width, n))


def _frobenius(ctx: TaskContext, A: DistMatrix | SparseDistMatrix) -> float:
    """Return the root of the sum of squares; of scaled elements, if that has overflown or lost its digits."""
    mine = _elements(A)
    squares = _over_all(ctx, _sum_of_squares(mine, 1.0))
    if math.isnan(squares) or _SAFE < squares < math.inf:
        return math.sqrt(squares)
    largest = _largest(ctx, A)
    if largest == 0 or not math.isfinite(largest):
        return largest
    scale = math.ldexp(1.0, min(-math.frexp(largest)[1], 1000))
    return math.sqrt(_over_all(ctx, _sum_of_squares(mine, scale))) / scale


def _sum_of_squares(local: Array, scale: float) -> float:
    if scale == 1 and local.dtype in (np.float64, np.complex128) and local.flags.c_contiguous:
        return _squared(local)
    squares = 0.0
    for rows, cols in _tiles(local):
        tile = local[rows, cols].astype(np.complex128 if local.dtype.kind == "c" else np.float64, order="C")
        tile *= scale
        squares += _squared(tile)
    return squares


def _squared(local: Array) -> float:
    """Return the sum of squares of a C-ordered array in double precision."""
    flat = local.reshape(-1).view(np.float64)  # a complex product of what overflows would be no number
    return float(np.vdot(flat, flat))


def _magnitudes(tile: Array) -> Array:
    """Return the magnitudes in double precision, in which no type overflows."""
    return np.abs(tile.astype(np.complex128 if tile.dtype.kind == "c" else np.float64))


def _largest(ctx: TaskContext, A: DistMatrix | SparseDistMatrix) -> float:
    """Return the largest magnitude; NaN if there is one."""
    local = _elements(A)
    return _maximum(ctx, np.array([_magnitudes(local[tile]).max() for tile in _tiles(local)]))


def _maximum(ctx: TaskContext, mine: Array) -> float:
    """Return the largest of numbers that are not negative; NaN, which MPI's maximum may overlook, if there is one."""
    return float(np.max(ctx.comm.allgather(float(mine.max()) if mine.size else 0.0)))


def _sums_of_magnitudes(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, axis: int) -> DistMatrix:
    """Return the sums of magnitudes over the rows (`axis` 0) or the columns (1). Collective over comm."""
    if isinstance(A, SparseDistMatrix):
        return _sparse_sums(ctx, A, axis, _magnitudes(A.arrays.values), np.dtype(np.float64))

    def partial(out: Array) -> None:
        out[...] = 0
        for rows, cols in _tiles(A.local):
            sums = _magnitudes(A.local[rows, cols]).sum(axis, keepdims=True)
            out[(slice(None), cols) if axis == 0 else (rows, slice(None))] += sums

    return _reduced(ctx, A, axis, np.float64, partial)
