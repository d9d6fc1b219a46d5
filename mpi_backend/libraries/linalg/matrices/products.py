"""Products of distributed matrices.

The shapes select one of three methods. If one factor is tall and distributed by rows, it never moves: a small other
factor is gathered (``rows``), or a small result is summed over the ranks (``inner``). All other products use SUMMA: the
result does not move; for each panel of the inner index the columns of A are broadcast along the rows of the grid, the
rows of B along its columns, and NumPy multiplies them.

We do not call p?gemm because it is slower: on an AMD processor NumPy's OpenBLAS multiplies faster than MKL. For 4000^3
on two ranks p?gemm reached 70 GFLOP/s with any blocks and grid, this module 90 to 95, and NumPy with two threads 102.

Source: R. van de Geijn, J. Watts, *SUMMA: scalable universal matrix multiplication algorithm*, Concurrency: Pract.
Exper. 9 (1997), 255.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts.layout import Grid, Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems, stopping
from alchemist_ray.mpi_backend.libraries.linalg.matrices.factors import Form, Operand, require_inner
from alchemist_ray.mpi_backend.libraries.linalg.matrices.sparse_products import sparse_product
from alchemist_ray.mpi_backend.libraries.linalg.slabs import deals_rows
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole

Array = npt.NDArray[Any]

_PANEL = 1024
"""Inner indices of a panel: enough that the product costs much more than adding it, but a panel takes little memory."""

_TEMPORARY = 1 << 24
"""Bytes of a partial product before it is added to the result."""


@task
def gemm(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    B: DistMatrix | SparseDistMatrix,
    transpose_a: bool = False,
    transpose_b: bool = False,
    alpha: complex = 1.0,
    conjugate_a: bool = False,
    conjugate_b: bool = False,
) -> DistMatrix:
    """Return the matrix product alpha op(A) op(B).

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, k), or (k, m) if `transpose_a`
        Left factor.
    B : DistMatrix or SparseDistMatrix, shape (k, n), or (n, k) if `transpose_b`
        Right factor; at most one of the two may be sparse. The product has NumPy's result type of both.
    transpose_a, transpose_b : bool
        Whether to transpose A or B.
    alpha : number
        A scalar factor.
    conjugate_a, conjugate_b : bool
        Whether to conjugate A or B; with the transpose this gives the conjugate transpose.

    Returns
    -------
    C : DistMatrix, shape (m, n)
        In the layout of op(A) if that is distributed by rows and op(B) is small; otherwise in MC_MR. In VC_STAR if A is
        sparse, and in STAR_VC if B is.

    Raises
    ------
    ArgumentError
        If a matrix is bool, or both are sparse.
    ArgumentValueError
        If the shapes do not multiply.

    Notes
    -----
    2mnk operations, at the speed of BLAS for floating-point numbers and of a plain loop for integers. Memory beyond the
    result: a thousand columns of A and rows of B on each rank, or a copy of op(B) or of C if that is not larger than a
    rank's share of a factor; also a copy of each operand that is not in MC_MR with matching blocks, or does not have
    the type of the product. Source: van de Geijn and Watts, Concurrency: Pract. Exper. 9 (1997), 255 (SUMMA).

    With a sparse factor: 2 nnz n operations, and about 16 MiB or a few columns of B and C; also a copy of B if A is
    transposed and B is not in VC_STAR.
    """
    form = Form(transpose_a, transpose_b, conjugate_a, conjugate_b, alpha)
    if isinstance(A, DistMatrix) and isinstance(B, DistMatrix) and small_problems.suits("gemm", A.shape, B.shape):
        return _on_one_rank(ctx, A, B, form)
    return product(ctx, A, B, form)


def _on_one_rank(ctx: TaskContext, A: DistMatrix, B: DistMatrix, form: Form) -> DistMatrix:
    """Return the product of small matrices, in the layout that :func:`product` would give it. Collective over comm."""
    dtype = form.dtype(ctx, A, B)
    left, right = Operand(A, form.transpose_a), Operand(B, form.transpose_b)
    require_inner(ctx, left.shape, right.shape, form)
    n = right.shape[1]
    by_rows = _moves_little(left, right.shape[0] * n)
    layout = dataclasses.replace(left.layout, block=(left.layout.block[0], max(n, 1))) if by_rows else "MC_MR"

    def work(A: Array, B: Array) -> Whole:
        A, B = (X.astype(dtype, copy=False) for X in (A, B))
        B = B.T if form.transpose_b else B
        C = np.matmul(A.T if form.transpose_a else A, np.conjugate(B) if form.conjugate_right else B)
        form.finish(C)
        return Whole(C, layout)

    return cast("DistMatrix", small_problems.solved(ctx, work, finite=False, A=A, B=B))


def product(
    ctx: TaskContext, A: DistMatrix | SparseDistMatrix, B: DistMatrix | SparseDistMatrix, form: Form
) -> DistMatrix:
    """Return alpha op(A) op(B); see the task :func:`.gemm`. Collective over comm."""
    if isinstance(A, SparseDistMatrix) or isinstance(B, SparseDistMatrix):
        return sparse_product(ctx, A, B, form)
    dtype = form.dtype(ctx, A, B)
    left = Operand(checks.converted(A, dtype), form.transpose_a)
    right = Operand(checks.converted(B, dtype), form.transpose_b)
    require_inner(ctx, left.shape, right.shape, form)
    conjugate = form.conjugate_right and dtype.kind == "c"
    if _moves_little(left, right.shape[0] * right.shape[1]):
        C = _rows(ctx, left, right, conjugate)
    elif _dealt_alike(left, right) and _small_result(left.shape[0], left.shape[1], right.shape[1], ctx.comm.size):
        C = _inner(ctx, left, right, conjugate)
    else:
        C = _summa(ctx, left, right, conjugate)
    form.finish(C.local)
    return C


def _moves_little(left: Operand, small: int) -> bool:
    """Whether `left` is distributed by rows, and a rank's share of it has at least `small` elements."""
    m, inner = left.shape
    return deals_rows(left.layout) and small * left.layout.grid.size <= m * inner


def _small_result(m: int, inner: int, n: int, size: int) -> bool:
    """Whether the product is at most as large as a rank's share of the larger factor, or small in any case."""
    return m * n <= max(-(-inner // size) * max(m, n), 1 << 16)


def _dealt_alike(left: Operand, right: Operand) -> bool:
    """Whether each rank holds whole columns of `left` and the same rows of `right`."""
    across, down = left.layout.transposed(), right.layout
    return (
        deals_rows(across)
        and deals_rows(down)
        and all(
            across.part((right.shape[0], 1), rank)[0] == down.part((right.shape[0], 1), rank)[0]
            for rank in range(down.grid.size)
        )
    )


def _rows(ctx: TaskContext, left: Operand, right: Operand, conjugate: bool) -> DistMatrix:
    """Multiply each rank's rows of `left` by the whole of `right`. Collective over comm."""
    m, n = left.shape[0], right.shape[1]
    whole = right.stored.to_global()
    if conjugate:
        whole = np.conjugate(whole)
    layout = dataclasses.replace(left.layout, block=(left.layout.block[0], max(n, 1)))
    C = checks.allocated(ctx, (m, n), left.stored.dtype, layout)
    factor = whole.T if right.transposed else whole
    for rows in stopping.in_parts(ctx, 2 * m * n * left.shape[1], C.dtype, left.local.shape[0]):
        np.matmul(left.local[rows], factor, out=C.local[rows])
    return C


def _inner(ctx: TaskContext, left: Operand, right: Operand, conjugate: bool) -> DistMatrix:
    """Multiply each rank's part of the inner index, and add up the products of all ranks. Collective over comm."""
    (m, inner), n = left.shape, right.shape[1]
    whole: Array | None = None
    for part in stopping.in_parts(ctx, 2 * m * n * inner, left.stored.dtype, right.local.shape[0]):
        product = _contribution(left, right, part, conjugate)
        whole = product if whole is None else np.add(whole, product, out=whole)
    assert whole is not None  # there is one part at least
    ctx.comm.Allreduce(MPI.IN_PLACE, whole)
    return checks.replicated(ctx, whole, "MC_MR")


def _contribution(left: Operand, right: Operand, part: slice, conjugate: bool) -> Array:
    """Return the product of some of this rank's columns of `left` and rows of `right`, C-ordered. Local."""
    if not conjugate:
        return np.ascontiguousarray(left.local[:, part] @ right.local[part])
    product = np.zeros((left.shape[0], right.shape[1]), left.stored.dtype)
    for start in range(part.start, part.stop, _PANEL):
        indices = slice(start, min(start + _PANEL, part.stop))
        product += left.local[:, indices] @ np.conjugate(right.local[indices])
    return product


def _summa(ctx: TaskContext, left: Operand, right: Operand, conjugate: bool) -> DistMatrix:
    """Multiply on the two-dimensional grid, panel by panel of the inner index. Collective over comm."""
    (m, inner), n = left.shape, right.shape[1]
    left = left.relayout(_grid_layout(left))
    right = right.relayout(_matching(left.layout, right))
    a, b = left.layout, right.layout
    layout = Layout("MC_MR", a.grid, (a.block[0], b.block[1]), (a.align[0], b.align[1]))
    C = checks.allocated(ctx, (m, n), left.stored.dtype, layout)
    if inner == 0:
        C.local[...] = 0
    width = max(1, min(_PANEL, inner) // a.block[1]) * a.block[1]
    rows = min(max(1, C.rows.size), max(256, _TEMPORARY // max(1, C.cols.size * C.dtype.itemsize)))
    temporary = np.empty((rows, C.cols.size), C.dtype)
    with _split(ctx.comm, a.grid) as (along_row, along_col):
        # allocated once: the first touch of a page costs more than filling it
        columns, rows_of_b = _panel(left, 1, width, along_row), _panel(right, 0, width, along_col)
        for start in range(0, inner, width):
            stop = min(start + width, inner)
            A1 = _gathered(left, 1, start, stop, along_row, columns)
            B1 = _gathered(right, 0, start, stop, along_col, rows_of_b)
            if conjugate:
                B1 = np.conjugate(B1, out=None if rows_of_b is None else B1)
            if start == 0:
                np.matmul(A1, B1, out=C.local)
            else:
                _accumulate(A1, B1, C.local, temporary)
            ctx.check_cancelled()
            ctx.progress(stop, inner, "gemm")
    return C


@contextmanager
def _split(comm: MPI.Comm, grid: Grid) -> Iterator[tuple[MPI.Comm, MPI.Comm]]:
    """Yield the communicators of this rank's row and column of the grid. Collective over comm."""
    myrow, mycol = grid.coords(comm.rank)
    along_row, along_col = comm.Split(myrow, mycol), comm.Split(mycol, myrow)
    try:
        yield along_row, along_col
    finally:
        along_row.Free()
        along_col.Free()


def _accumulate(A1: Array, B1: Array, C: Array, temporary: Array) -> None:
    """Add A1 B1 to C, as many rows at a time as `temporary` has. Local."""
    rows = temporary.shape[0]
    for start in range(0, C.shape[0], rows):
        block = C[start : start + rows]
        block += np.matmul(A1[start : start + rows], B1, out=temporary[: block.shape[0]])


def _grid_layout(operand: Operand) -> Layout:
    """Return the layout of `operand` if SUMMA can use it and its blocks have a good width, else the default one."""
    layout = operand.layout
    if layout.pair == "MC_MR" and 64 <= layout.block[1] <= 1024:
        return layout
    return Layout.of("MC_MR", operand.shape, layout.grid.size)


def _matching(left: Layout, right: Operand) -> Layout:
    """Return a layout for `right` whose row blocks match the column blocks of `left`: its own if it does."""
    layout = right.layout
    if layout.pair == "MC_MR" and layout.grid == left.grid and layout.block[0] == left.block[1]:
        return layout
    default = Layout.of("MC_MR", right.shape, left.grid.size, grid=left.grid)
    return dataclasses.replace(default, block=(left.block[1], default.block[1]))


def _panel(operand: Operand, axis: int, width: int, comm: MPI.Comm) -> Array | None:
    """Return memory for `width` indices of `axis` from all ranks of `comm`; None if this rank has them all. Local."""
    if comm.size == 1:
        return None
    shape = list(operand.local.shape)
    shape[axis] = width
    return np.empty(shape, operand.stored.dtype, operand.order)


def _gathered(operand: Operand, axis: int, start: int, stop: int, comm: MPI.Comm, panel: Array | None) -> Array:
    """Return indices ``start .. stop-1`` of `axis` of this rank's rows or columns. Collective over comm."""
    if panel is None:
        return operand.local[:, start:stop] if axis else operand.local[start:stop]
    panel = panel[:, : stop - start] if axis else panel[: stop - start]
    _gather_blocks(comm, operand, axis, start, panel)
    return panel


def _gather_blocks(comm: MPI.Comm, operand: Operand, axis: int, start: int, panel: Array) -> None:
    """Fill `panel` along `axis`, from index `start` on, with the blocks that the ranks of `comm` hold in turn."""
    block, align = operand.layout.block[axis], operand.layout.align[axis]
    part, local = operand.parts[axis], np.moveaxis(operand.local, axis, 0)
    target = np.moveaxis(panel, axis, 0)
    for offset in range(0, target.shape[0], block):
        root = ((start + offset) // block + align) % comm.size
        piece = target[offset : offset + block]
        if comm.rank == root:
            first, last = part.local_range(start + offset, start + offset + piece.shape[0])
            piece[...] = local[first:last]
        _broadcast(comm, root, piece)


def _broadcast(comm: MPI.Comm, root: int, piece: Array) -> None:
    """Broadcast a block with any strides in place."""
    if piece.flags.c_contiguous or piece.flags.f_contiguous:
        comm.Bcast(piece if piece.flags.c_contiguous else piece.T, root)
        return
    order: Literal["C", "F"] = "C" if piece.strides[1] == piece.itemsize else "F"
    packed = np.array(piece, order=order) if comm.rank == root else np.empty(piece.shape, piece.dtype, order)
    comm.Bcast(packed if order == "C" else packed.T, root)
    if comm.rank != root:
        piece[...] = packed
