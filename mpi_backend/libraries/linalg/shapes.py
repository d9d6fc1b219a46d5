"""Checks of the shapes of matrices."""

from __future__ import annotations

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext


def require_square(ctx: TaskContext, **matrices: DistMatrix) -> None:
    """Check that the named matrices are square. Local.

    Raises
    ------
    ArgumentValueError
        If one is not square.
    """
    for name, A in matrices.items():
        if A.shape[0] != A.shape[1]:
            raise ArgumentValueError(ctx.task, f"{name} must be square, but is {A.shape[0]}x{A.shape[1]}")
