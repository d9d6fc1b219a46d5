"""Matrices as ScaLAPACK needs them: on a two-dimensional grid of ranks, in square blocks, in writable memory."""

from __future__ import annotations

from alchemist_ray.layouts.layout import DEFAULT_BLOCK, Grid, Layout
from alchemist_ray.mpi_backend.ali import DistMatrix
from alchemist_ray.mpi_backend.matrices.agreement import Agreement


def square_blocked(A: DistMatrix) -> bool:
    """Whether `A` lies on a grid of all ranks in square blocks of a size for which ScaLAPACK is fast. Local."""
    mb, nb = A.layout.block
    return (
        A.layout.pair == "MC_MR" and mb == nb and (32 <= mb <= 512 or mb >= max(A.shape)) and A.layout.align == (0, 0)
    )


def on_grid(A: DistMatrix) -> DistMatrix:
    """Return `A` on a grid in square blocks; `A` itself if it already is. Collective over comm."""
    return A if square_blocked(A) else A.relayout(square_layout(A.shape, A.comm.size))


def square_layout(shape: tuple[int, int], size: int) -> Layout:
    """Return MC_MR on `size` ranks in square blocks, of the default size if the matrix is large enough. Local."""
    grid = Grid.of_size(size)
    share = max(-(-shape[0] // grid.nprow), -(-shape[1] // grid.npcol))
    return Layout("MC_MR", grid, (max(1, min(DEFAULT_BLOCK, share)),) * 2)


def grid_copy(A: DistMatrix) -> DistMatrix:
    """Return a copy of `A` on a grid in square blocks. Collective over comm."""
    B = on_grid(A)
    if B is not A:
        return B
    with Agreement(A.comm):
        B = A.new(A.shape, A.layout)
    B.local[...] = A.local
    return B


def leading_columns(A: DistMatrix, k: int) -> DistMatrix:
    """Return the first `k` columns of `A`, in its layout. Collective over comm."""
    with Agreement(A.comm):
        B = A.new((A.shape[0], k), A.layout)
    B.local[...] = A.local[:, : B.cols.size]
    return B


def leading_rows(A: DistMatrix, k: int) -> DistMatrix:
    """Return the first `k` rows of `A`, in its layout. Collective over comm."""
    with Agreement(A.comm):
        B = A.new((k, A.shape[1]), A.layout)
    B.local[...] = A.local[: B.rows.size]
    return B
