"""A small library to try Alchemist with: the TestLib of the 2019 interface, and tasks for testing calls."""

from __future__ import annotations

import math
import time

import numpy as np

from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries import linalg

__version__ = "1.0"


@task
def greet(ctx: TaskContext, name: str) -> str:
    """Return a greeting from the worker group.

    Parameters
    ----------
    name : str
        Name to greet.
    """
    workers = ctx.comm.allreduce(1)
    return f"Hello {name}, from {workers} worker{'s' if workers > 1 else ''}"


@task
def truncated_svd(ctx: TaskContext, A: DistMatrix, rank: int) -> tuple[DistMatrix, DistMatrix, DistMatrix]:
    """Return the leading `rank` singular values and vectors of `A`, smallest first, each as a matrix.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, float32 or float64.
    rank : int
        Number of singular values, ``1 <= rank <= min(m, n)``.

    Returns
    -------
    S : DistMatrix, shape (rank, 1)
        Singular values, ascending.
    U : DistMatrix, shape (m, rank)
        Left singular vectors, in the order of S.
    V : DistMatrix, shape (n, rank)
        Right singular vectors, in the order of S.

    Raises
    ------
    ArgumentError, ArgumentValueError, NonFiniteError, ConvergenceError
        See :func:`alchemist_ray.mpi_backend.libraries.linalg.truncated_svd`.

    Notes
    -----
    The results, and the values in them, have the order of the session in Figure 3 of the CUG 2019 paper.
    """
    U, s, Vt = linalg.truncated_svd(ctx, A, rank)
    V = DistMatrix.empty(ctx.comm, Vt.shape[::-1], Vt.dtype, Vt.layout.transposed(), ctx.allocate)
    V.local[...] = Vt.local.T
    return ctx.from_replicated(s[::-1, np.newaxis], "VC_STAR"), _reversed_columns(ctx, U), _reversed_columns(ctx, V)


def _reversed_columns(ctx: TaskContext, A: DistMatrix) -> DistMatrix:
    """Return `A` with its columns in reverse order. Collective over comm if a rank does not hold whole rows."""
    if any(A.layout.local_shape(A.shape, r)[1] not in (0, A.shape[1]) for r in range(ctx.comm.size)):
        A = A.relayout("VC_STAR")
    B = A.new(A.shape, A.layout)
    B.local[...] = A.local[:, ::-1]
    return B


@task
def noop(ctx: TaskContext) -> None:
    """Do nothing; the call takes only the time to reach the workers and come back."""


@task
def sleep(ctx: TaskContext, seconds: float) -> None:
    """Sleep on every rank for a number of seconds; report progress and check for cancellation ten times a second."""
    for tenth in range(math.ceil(10 * seconds)):
        ctx.check_cancelled()
        ctx.progress(tenth / 10, seconds, "sleeping")
        time.sleep(min(seconds - tenth / 10, 0.1))


@task
def fail(ctx: TaskContext, rank: int, message: str) -> None:
    """Raise ValueError with `message` on rank `rank` only; the other ranks return."""
    if ctx.comm.rank == rank:
        raise ValueError(message)
