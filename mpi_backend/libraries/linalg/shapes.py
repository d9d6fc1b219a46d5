"""Checks of the shapes of matrices."""

from __future__ import annotations

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext


def require_elements(ctx: TaskContext, **matrices: DistMatrix | SparseDistMatrix) -> None:
    """Check that every named matrix has rows and columns. Local.

    Raises
    ------
    ArgumentValueError
        If one has not.
    """
    for name, A in matrices.items():
        if 0 in A.shape:
            raise ArgumentValueError(ctx.task, f"{name} is {A.shape[0]}x{A.shape[1]}: it has no elements")


def require_square(ctx: TaskContext, **matrices: DistMatrix) -> None:
    """Check that the named matrices are square and not empty. Local.

    Raises
    ------
    ArgumentValueError
        If one is not.
    """
    require_elements(ctx, **matrices)
    for name, A in matrices.items():
        if A.shape[0] != A.shape[1]:
            raise ArgumentValueError(ctx.task, f"{name} must be square, but is {A.shape[0]}x{A.shape[1]}")
