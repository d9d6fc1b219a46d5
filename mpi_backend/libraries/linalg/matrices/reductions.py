"""Sums along the axes of a matrix, and norms.

A sum over the rows of a matrix is a matrix with a single row, and a sum over its columns has a single column. Each sum
lies on all ranks that hold a part of its column (row). If each rank holds whole columns, no data is exchanged;
otherwise only the ranks that share columns add up their sums. If several ranks hold the same elements, one of them
(:meth:`~alchemist_ray.layouts.layout.Layout.is_source`) contributes them.

Local sums are NumPy's. Norms are computed in double precision for every type, one tile at a time, so no temporary is as
large as the matrix; norms from singular values use a factorisation instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg.checks import allocated, converted
from alchemist_ray.mpi_backend.libraries.linalg.spectral.full_svd import svd
from alchemist_ray.mpi_backend.libraries.linalg.spectral.singular import truncated_svd

Array = npt.NDArray[Any]
Partial = Callable[[Array], Any]
"""Writes the contribution of this rank's elements."""

_TILE = 1 << 16
"""Elements that are converted at a time: half a megabyte, which fits into the cache."""

_SAFE = 2.0**-900
"""A sum of squares above this has not lost accuracy to underflow."""


def collapsed(layout: Layout, axis: int) -> Layout:
    """Return the layout of the sums over `axis` of a matrix in `layout`. Local.

    In it every rank that holds, or in a larger matrix would hold, a part of a column (`axis` 0) or row (1) has the sum
    of that column or row.
    """
    if layout.pair == "CIRC_CIRC":
        return layout
    dists, block, align = layout.pair.split("_"), list(layout.block), list(layout.align)
    dists[axis], block[axis], align[axis] = "STAR", 1, 0
    return Layout("_".join(dists), layout.grid, (block[0], block[1]), (align[0], align[1]))


def total(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, axis: int | None) -> Any:
    """Return the sum of all elements or along an axis; see the task :func:`.sum`."""
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
    """Return the sum of one scalar from each rank. Collective over comm."""
    whole = np.array([mine])
    ctx.comm.Allreduce(MPI.IN_PLACE, whole)
    return whole[0].item()


def _reduced(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    axis: int,
    dtype: npt.DTypeLike,
    partial: Partial,
    largest: bool = False,
) -> DistMatrix:
    """Return a row (`axis` 0) or column (1) that is reduced from the ranks' contributions by `partial`. Collective.

    The contributions are added up. With `largest` their maximum is taken, and they must be float64 and not negative.
    """
    layout = collapsed(A.layout, axis)
    C = allocated(ctx, (1, A.shape[1]) if axis == 0 else (A.shape[0], 1), dtype, layout)
    whole = layout.pair == A.layout.pair  # each rank that needs a sum has all its terms
    if not (whole or A.layout.is_source(ctx.comm.rank)):
        C.local[...] = 0
    elif C.local.size:
        partial(C.local)
    if not whole:
        ranks = ctx.comm.Split((C.rows, C.cols)[1 - axis].position, ctx.comm.rank)
        try:
            if largest:  # compare as integers: then NaN is the largest, while MPI may overlook a floating-point NaN
                ranks.Allreduce(MPI.IN_PLACE, C.local.view(np.int64), MPI.MAX)
            else:
                ranks.Allreduce(MPI.IN_PLACE, C.local)
        finally:
            ranks.Free()
    return C


def _sparse_sums(ctx: TaskContext, A: SparseDistMatrix, axis: int, values: Array, dtype: np.dtype[Any]) -> DistMatrix:
    """Return the sums along `axis` of the matrix with the pattern of `A` and these `values`. Collective over comm."""

    def partial(out: Array) -> None:
        local = A.rows_with(values, transposed=axis == 0)
        out.reshape(-1)[...] = local @ np.ones(local.shape[1], dtype)

    return _reduced(ctx, A, axis, dtype, partial)


# --- norms ------------------------------------------------------------------------------------------------------------


_KINDS: dict[str | float, str] = {"fro": "fro", "max": "max", "inf": "inf", "-inf": "-inf", "nuc": "nuc"} | {
    1: "1", -1: "-1", 2: "2", -2: "-2", math.inf: "inf", -math.inf: "-inf"
}  # fmt: skip
_VECTOR_KINDS: dict[str | float, str] = {"fro": "2", 2: "2", 1: "1", "max": "inf", "inf": "inf", math.inf: "inf"}


def norm(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, order: str | float) -> float:
    """Return a norm of `A`; see the task :func:`.norm`. Collective over comm."""
    kind = _kind(ctx, _KINDS, order, "ord")
    if isinstance(A, SparseDistMatrix):
        A = A.without_duplicates()
    with np.errstate(all="ignore"):
        return _matrix_norm(ctx, A, kind)


def vector_norms(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, order: str | float, axis: int) -> DistMatrix:
    """Return the norms of the columns (`axis` 0) or rows (1); see the task :func:`.norm`. Collective over comm."""
    kind = _kind(ctx, _VECTOR_KINDS, order, "ord of columns or rows")
    if axis not in (-2, -1, 0, 1):
        raise ArgumentValueError(ctx.task, f"axis must be 0 or 1, or None for a norm of the matrix, but is {axis}")
    if isinstance(A, SparseDistMatrix):
        A = A.without_duplicates()
    with np.errstate(all="ignore"):
        return _vector_norms(ctx, A, kind, axis % 2)


def _kind(ctx: TaskContext, kinds: dict[str | float, str], order: str | float, name: str) -> str:
    kind = kinds.get(order)
    if kind is None:
        raise ArgumentValueError(ctx.task, f"{name} must be one of {', '.join(map(repr, kinds))}, but is {order!r}")
    return kind


def _matrix_norm(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, kind: str) -> float:
    if kind == "fro":
        return _frobenius(ctx, A)
    if kind == "max":
        return _largest(ctx, A)
    if kind in ("2", "-2", "nuc"):
        return _of_singular_values(ctx, A, kind)
    sums = _sums_of_magnitudes(ctx, A, 0 if kind in ("1", "-1") else 1)
    return _maximum(ctx, sums.local) if kind in ("1", "inf") else _minimum(ctx, sums.local)


def _vector_norms(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, kind: str, axis: int) -> DistMatrix:
    """Return the norms of the columns (`axis` 0) or rows (1). Collective over comm."""
    if kind == "1":
        return _sums_of_magnitudes(ctx, A, axis)
    if kind == "inf":
        return _folded(ctx, A, axis, np.maximum)
    squares = _folded(ctx, A, axis, np.add, np.square)
    safe = np.array([np.all((squares.local > _SAFE) & (squares.local < math.inf))])
    ctx.comm.Allreduce(MPI.IN_PLACE, safe, MPI.LAND)
    if safe[0]:
        np.sqrt(squares.local, out=squares.local)
        return squares
    return _scaled_norms(ctx, A, axis)


def _scaled_norms(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, axis: int) -> DistMatrix:
    """Return Euclidean norms from elements scaled by the largest of each column or row. Collective over comm."""
    largest = _folded(ctx, A, axis, np.maximum)
    scale = np.where((largest.local > 0) & (largest.local < math.inf), largest.local, 1.0)
    norms = _folded(ctx, A, axis, np.add, np.square, scale)
    np.sqrt(norms.local, out=norms.local)
    norms.local *= scale
    return norms


def _of_singular_values(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, kind: str) -> float:
    """Return the largest or smallest singular value, or the sum of all. Collective over comm."""
    if 0 in A.shape:
        return 0.0
    A = _floating(A)
    if kind == "2":
        _, s, _ = truncated_svd(ctx, A, 1, None)
        return float(s[0])
    values: Any = svd(ctx, A.to_dense() if isinstance(A, SparseDistMatrix) else A, compute_uv=False)
    return float(values.sum(dtype=np.float64) if kind == "nuc" else values[-1])


def _floating(A: DistMatrix | SparseDistMatrix) -> DistMatrix | SparseDistMatrix:
    """Return `A` with elements of a floating-point type. Collective over comm."""
    if A.dtype.kind not in "bi":
        return A
    if isinstance(A, DistMatrix):
        return converted(A, np.dtype(np.float64))
    B = A.like(np.float64)
    B.arrays.values[...] = A.arrays.values
    return B


def _elements(A: DistMatrix | SparseDistMatrix) -> Array:
    """Return the elements that this rank contributes to a reduction over all elements."""
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
    """Return the root of the sum of squares; scale the elements first if the sum overflows or loses digits."""
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
    flat = local.reshape(-1).view(np.float64)  # a complex product that overflows would be NaN
    return float(np.vdot(flat, flat))


def _magnitudes(tile: Array) -> Array:
    """Return the magnitudes in double precision, which holds those of every type."""
    return np.abs(tile.astype(np.complex128 if tile.dtype.kind == "c" else np.float64))


def _largest(ctx: TaskContext, A: DistMatrix | SparseDistMatrix) -> float:
    """Return the largest magnitude; NaN if an element is NaN."""
    local = _elements(A)
    return _maximum(ctx, np.array([_magnitudes(local[tile]).max() for tile in _tiles(local)]))


def _maximum(ctx: TaskContext, mine: Array) -> float:
    """Return the largest of some numbers >= 0, or NaN if one is NaN, which MPI's maximum may overlook."""
    return float(np.max(ctx.comm.allgather(float(mine.max()) if mine.size else 0.0)))


def _minimum(ctx: TaskContext, mine: Array) -> float:
    """Return the smallest of some numbers; NaN if one is NaN; 0 if there are none. Collective over comm."""
    smallest = float(np.min(ctx.comm.allgather(float(mine.min()) if mine.size else math.inf)))
    return 0.0 if not ctx.comm.allreduce(mine.size) else smallest


def _sums_of_magnitudes(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, axis: int) -> DistMatrix:
    """Return the sums of magnitudes over the rows (`axis` 0) or the columns (1). Collective over comm."""
    return _folded(ctx, A, axis, np.add)


def _folded(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    axis: int,
    fold: np.ufunc,
    of: np.ufunc = np.positive,
    scale: Array | None = None,
) -> DistMatrix:
    """Fold ``of(magnitude)`` over the rows (`axis` 0) or the columns (1) of `A`. Collective over comm.

    `fold` is np.add or np.maximum. If `scale` is given, each magnitude is first divided by the entry of `scale` for its
    column (row); `scale` has the shape of this rank's block of the result.
    """
    if isinstance(A, SparseDistMatrix):
        return _folded_entries(ctx, A, axis, fold, of, scale)

    def partial(out: Array) -> None:
        out[...] = 0
        for rows, cols in _tiles(A.local):
            where = (slice(None), cols) if axis == 0 else (rows, slice(None))
            magnitudes = _magnitudes(A.local[rows, cols])
            if scale is not None:
                magnitudes /= scale[where]
            out[where] = fold(out[where], fold.reduce(of(magnitudes), axis, keepdims=True))

    return _reduced(ctx, A, axis, np.float64, partial, fold is np.maximum)


def _folded_entries(
    ctx: TaskContext, A: SparseDistMatrix, axis: int, fold: np.ufunc, of: np.ufunc, scale: Array | None
) -> DistMatrix:
    """Do the same as :func:`_folded` for a sparse matrix. Collective over comm."""

    def partial(out: Array) -> None:
        local = A.rows_with(_magnitudes(A.arrays.values), transposed=axis == 0)
        if scale is not None:
            flat = scale.reshape(-1)
            local.data /= flat[local.indices] if axis == 0 else np.repeat(flat, np.diff(local.indptr))
        of(local.data, out=local.data)
        folded = local @ np.ones(local.shape[1]) if fold is np.add else local.max(1).toarray()
        out.reshape(-1)[...] = folded.reshape(-1)

    return _reduced(ctx, A, axis, np.float64, partial, fold is np.maximum)
