"""QR factorisation of distributed matrices."""

from __future__ import annotations

import numpy as np

from alchemist_ray.mpi_backend import scalapack
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.linalg import checks
from alchemist_ray.mpi_backend.linalg.grid_matrices import grid_copy, leading_columns, leading_rows
from alchemist_ray.mpi_backend.linalg.slabs import slab_of
from alchemist_ray.mpi_backend.linalg.tsqr import TSQR

_NARROW = 32
"""Columns up to which the tree is taken even where ranks have fewer rows than that. It must be for a single column:
ScaLAPACK sees a matrix of one row, in which it cannot tell a row from a column (INCX = M_X = 1), and fails."""

_WIDEST_TREE = 2000
"""Columns up to which triangles are small enough to be factored whole by one rank at each node of the tree."""


def factor(ctx: TaskContext, A: DistMatrix) -> tuple[DistMatrix, DistMatrix]:
    """Return Q and R; see the task :func:`~alchemist_ray.mpi_backend.linalg.qr`. Collective over comm."""
    checks.require_floating(ctx, A=A)
    checks.require_finite(ctx, A=A)
    m, n = A.shape
    if m >= n and n <= max(_NARROW, min(m // ctx.comm.size, _WIDEST_TREE)):
        return _by_tree(ctx, A)
    return _by_scalapack(A)


def _by_tree(ctx: TaskContext, A: DistMatrix) -> tuple[DistMatrix, DistMatrix]:
    slab = slab_of(A)
    factors = TSQR(ctx.comm, slab.local)
    return slab.tall_result(ctx, factors.q()), ctx.from_replicated(factors.R, "MC_MR")


def _by_scalapack(A: DistMatrix) -> tuple[DistMatrix, DistMatrix]:
    work = grid_copy(A)
    p = min(A.shape)
    tau = scalapack.gelqf(work)
    R = leading_rows(work, p)
    below = R.rows.indices()[:, np.newaxis] > R.cols.indices()
    R.local[below] = 0
    scalapack.orglq(work, tau)
    return leading_columns(work, p), R
