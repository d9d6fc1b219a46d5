"""Linear systems with distributed matrices."""

from __future__ import annotations

from alchemist_ray.errors import ArgumentValueError, SingularMatrixError
from alchemist_ray.mpi_backend import scalapack
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.linalg import checks
from alchemist_ray.mpi_backend.linalg.grid_matrices import grid_copy


def solution(ctx: TaskContext, A: DistMatrix, b: DistMatrix) -> DistMatrix:
    """Return x; see the task :func:`~alchemist_ray.mpi_backend.linalg.solve`. Collective over comm."""
    dtype = checks.require_floating(ctx, A=A, b=b)
    _require_shapes(ctx, A, b)
    checks.require_finite(ctx, A=A, b=b)
    factors = grid_copy(checks.converted(A, dtype))
    ipiv, info = scalapack.getrf(factors)
    if info > 0:
        raise SingularMatrixError(ctx.task, "A", info)
    # Column-major right-hand sides, as ScaLAPACK wants them, are a row-major transpose.
    bt = checks.converted(b, dtype).transpose(factors.layout)
    scalapack.getrs(factors, ipiv, bt)
    return bt.transpose(b.layout)


def _require_shapes(ctx: TaskContext, A: DistMatrix, b: DistMatrix) -> None:
    (m, n), rows = A.shape, b.shape[0]
    if m != n:
        raise ArgumentValueError(ctx.task, f"A must be square, but is {m}x{n}; for least squares use qr")
    if rows != n:
        raise ArgumentValueError(
            ctx.task, f"A is {n}x{n}, so b must have {n} rows, but it is {b.shape[0]}x{b.shape[1]}"
        )
