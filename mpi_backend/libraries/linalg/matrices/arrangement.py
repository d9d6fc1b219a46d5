"""Copies of matrices in another layout, and transposes."""

from __future__ import annotations

import numpy as np

from alchemist_ray.errors import ArgumentError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg.checks import allocated


def rearranged(ctx: TaskContext, A: DistMatrix, layout: Layout) -> DistMatrix:
    """Return a copy of `A` in `layout`. Collective over comm."""
    if layout != A.layout:
        return A.relayout(layout)
    B = allocated(ctx, A.shape, A.dtype, layout)
    np.copyto(B.local, A.local)
    return B


def transposed(
    ctx: TaskContext, A: DistMatrix | SparseDistMatrix, layout: Layout | None, conjugate: bool
) -> DistMatrix | SparseDistMatrix:
    """Return the transpose; see the task :func:`.transpose`. Collective over comm."""
    if isinstance(A, SparseDistMatrix):
        if layout is not None:
            raise ArgumentError(ctx.task, "the transpose of a sparse matrix is always distributed by rows: omit layout")
        return A.transposed(conjugate)
    At = A.transpose(A.layout.transposed() if layout is None else layout)
    if conjugate and At.dtype.kind == "c":
        np.conjugate(At.local, out=At.local)
    return At
