"""A library that misbehaves on purpose."""

import ctypes
import os
import signal
import sys
import time
from typing import Any

import numpy as np

from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task

__version__ = "3.1"


@task
def echo(ctx: TaskContext, value: Any) -> Any:
    """Return the value."""
    return value


@task
def typed(ctx: TaskContext, A: DistMatrix, k: int, *, tol: float = 1e-3, name: str | None = None) -> dict:
    """Take one argument of each kind."""
    return {"shape": list(A.shape), "k": k, "tol": tol, "name": name}


@task
def scale(ctx: TaskContext, A: DistMatrix, factor: float) -> DistMatrix:
    """Return factor * A."""
    B = A.new(A.shape, A.layout)
    np.multiply(A.local, factor, out=B.local)
    return B


@task
def total(ctx: TaskContext, A: DistMatrix) -> float:
    """Return the sum of all elements, computed in a non-redundant layout."""
    local = A.relayout("VC_STAR").local
    return float(ctx.comm.allreduce(local.sum()))


@task
def local_sums(ctx: TaskContext, A: DistMatrix) -> list:
    """Return the sum of what each rank holds."""
    return ctx.comm.allgather(float(A.local.sum()))


@task
def raise_on(ctx: TaskContext, rank: int, message: str) -> None:
    """Raise ValueError on one rank; the others return."""
    if ctx.comm.rank == rank:
        raise ValueError(message)


@task
def raise_on_and_wait(ctx: TaskContext, rank: int) -> None:
    """Raise on one rank while the others wait for it in MPI, for ever."""
    if ctx.comm.rank == rank:
        raise RuntimeError("left the others waiting")
    ctx.comm.barrier()


@task
def leave(ctx: TaskContext) -> None:
    """Call exit()."""
    sys.exit(3)


@task
def crash(ctx: TaskContext, rank: int) -> None:
    """Die of a segmentation fault on one rank."""
    if ctx.comm.rank == rank:
        os.kill(os.getpid(), signal.SIGSEGV)
    ctx.comm.barrier()


@task
def nap(ctx: TaskContext, seconds: float) -> float:
    """Sleep, and say how far the sleep is."""
    for tenth in range(10):
        ctx.progress(tenth, 10, "sleeping")
        time.sleep(seconds / 10)
    ctx.progress(10, 10, "awake")
    return seconds


@task
def unspeakable(ctx: TaskContext) -> Any:
    """Return what cannot cross the wire."""
    return {1, 2, 3}


@task
def one_sided(ctx: TaskContext, bytes_on_last: int) -> DistMatrix:
    """Return a matrix of which only the last rank holds anything."""
    import dataclasses

    from alchemist_ray.layout import Layout

    shape = (1, max(1, bytes_on_last // 8))
    layout = dataclasses.replace(Layout.of("CIRC_CIRC", shape, ctx.comm.size), align=(ctx.comm.size - 1, 0))
    local = np.zeros(layout.local_shape(shape, ctx.comm.rank))
    return DistMatrix(ctx.comm, shape, layout, local)


@task
def half_kept(ctx: TaskContext, rows: int) -> list:
    """Return two matrices, the second of a type that there is not."""
    return [ctx.empty((rows, 100), "float64", "VC_STAR"), ctx.empty((rows, 100), "int8", "VC_STAR")]


@task
def seize(ctx: TaskContext) -> None:
    """Sleep with the interpreter lock held, so that no other thread of the worker runs."""
    ctypes.PyDLL(None).sleep(30)
