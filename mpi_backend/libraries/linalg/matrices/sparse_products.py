"""Products of a sparse matrix, or its transpose, with a dense one.

The sparse matrix does not move; it is distributed by rows. For its product with a dense matrix X every rank needs all
rows of X. They are gathered some columns at a time, which bounds their memory. For the product of its transpose every
rank needs only the rows of X that match its rows of the sparse matrix. Then every rank has a contribution to all rows
of the result; the contributions are added up and distributed, again some columns at a time. A product with the sparse
matrix on the right is computed as the transpose of one with it on the left.

For any pattern of entries, either X moves once to every rank, or the result moves once from every rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentError
from alchemist_ray.layouts import tiling
from alchemist_ray.layouts.layout import AxisPart, Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.libraries.linalg.matrices.factors import Form, Operand, require_inner

Array = npt.NDArray[Any]

_PANEL = 1 << 22
"""Bytes of the columns that are gathered or added up at a time; they fit into the cache unless one column is larger."""


def sparse_product(
    ctx: TaskContext, A: DistMatrix | SparseDistMatrix, B: DistMatrix | SparseDistMatrix, form: Form
) -> DistMatrix:
    """Return alpha op(A) op(B) by rows if A is sparse, or by columns if B is. Collective over comm.

    Raises
    ------
    ArgumentError
        If both are sparse.
    ArgumentValueError
        If the shapes do not multiply.
    """
    dtype = form.dtype(ctx, A, B)
    left = A.shape[::-1] if form.transpose_a else A.shape
    right = B.shape[::-1] if form.transpose_b else B.shape
    require_inner(ctx, left, right, form)
    if isinstance(A, SparseDistMatrix) and isinstance(B, DistMatrix):
        C = _product(ctx, A, form.transpose_a, Operand(B, form.transpose_b), dtype, form)
    elif isinstance(B, SparseDistMatrix) and isinstance(A, DistMatrix):
        mirrored = form.mirrored()
        Ct = _product(ctx, B, mirrored.transpose_a, Operand(A, mirrored.transpose_b), dtype, mirrored)
        C = checks.allocated(ctx, (left[0], right[1]), dtype, Ct.layout.transposed())
        C.local[...] = Ct.local.T
    else:
        raise ArgumentError(ctx.task, "A and B are both sparse: use to_dense on one of them")
    return C


def _product(
    ctx: TaskContext, S: SparseDistMatrix, transposed: bool, X: Operand, dtype: np.dtype[Any], form: Form
) -> DistMatrix:
    """Return alpha op(S) X, distributed by rows; `form` holds the conjugations. Collective over comm."""
    shape = (S.shape[1] if transposed else S.shape[0], X.shape[1])
    C = checks.allocated(ctx, shape, dtype, "VC_STAR")
    if transposed:
        X = X.relayout(Layout.of("VC_STAR", X.shape, ctx.comm.size))
    # converted once, because SciPy would convert for every panel
    local = S.rows_with(S.arrays.values.astype(dtype, copy=False), transposed)
    for start, stop in _panels(max(S.shape) * dtype.itemsize, shape[1]):
        panel = X.local[:, start:stop] if transposed else _gathered(X, start, stop)
        panel = np.ascontiguousarray(panel, dtype)
        if form.conjugate_right and dtype.kind == "c":
            panel = np.conjugate(panel)
        C.local[:, start:stop] = _summed(ctx, C, local @ panel) if transposed else local @ panel
        ctx.check_cancelled()
        ctx.progress(stop, shape[1], "product")
    form.finish(C.local)
    return C


def _panels(column: int, n: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of `n` columns of `column` bytes each."""
    width = max(1, _PANEL // max(column, 1))
    for start in range(0, n, width):
        yield start, min(start + width, n)


def _summed(ctx: TaskContext, C: DistMatrix, contribution: Array) -> Array:
    """Return this rank's rows of the sum of all ranks' contributions to some columns of C. Collective over comm."""
    width = contribution.shape[1]
    counts = [C.layout.part(C.shape, rank)[0].size * width for rank in range(ctx.comm.size)]
    share = np.empty((C.rows.size, width), C.dtype)
    ctx.comm.Reduce_scatter(contribution, share, counts)
    return share


def _gathered(X: Operand, start: int, stop: int) -> Array:
    """Return columns ``start .. stop-1`` of X on every rank. Collective over comm unless each rank has them."""
    A, axis = X.stored, 0 if X.transposed else 1
    if A.layout.pair == "STAR_STAR" or A.comm.size == 1:
        return X.local[:, start:stop]
    parts = [A.layout.part(A.shape, rank) for rank in range(A.comm.size)]
    spans = [_local_range(each[axis], start, stop) for each in parts]
    counts = [
        (last - first) * each[1 - axis].size if A.layout.is_source(rank) else 0
        for rank, (each, (first, last)) in enumerate(zip(parts, spans, strict=True))
    ]
    mine = slice(*spans[A.comm.rank]) if A.layout.is_source(A.comm.rank) else slice(0)
    outgoing = np.ascontiguousarray(A.local[mine] if axis == 0 else A.local[:, mine])
    incoming = np.empty(sum(counts), A.dtype)
    A.comm.Allgatherv(outgoing, [incoming, counts])
    panel = np.empty((stop - start, A.shape[1]) if axis == 0 else (A.shape[0], stop - start), A.dtype)
    corner = (start, 0) if axis == 0 else (0, start)
    taken = 0
    for (rows, cols), (first, last), count in zip(parts, spans, counts, strict=True):
        if count:
            block = incoming[taken : taken + count].reshape((last - first, -1) if axis == 0 else (-1, last - first))
            tiling.gather(block, panel, rows, cols, (first, 0) if axis == 0 else (0, first), corner)
            taken += count
    return panel.T if axis == 0 else panel


def _local_range(part: AxisPart, start: int, stop: int) -> tuple[int, int]:
    """Return the local indices of ``start .. stop-1``; an empty range if the rank has no part of the matrix."""
    return part.local_range(min(start, part.extent), min(stop, part.extent))
