"""Factorisations that one rank computes faster than all ranks together.

Dense solvers for eigenvalues and singular values begin with a two-sided reduction (to tridiagonal, bidiagonal or
Hessenberg form), which does half of its work in matrix-vector products. These are limited by memory bandwidth, which
all ranks of a host share. So on one host ScaLAPACK is slower than LAPACK with as many threads: for n = 4000 on two
ranks p?syevd took 11 s and LAPACK's ?syevr with two threads 8.5 s; for n = 2000 p?gesvd took 5.1 s and LAPACK 2.8 s.
Gathering and redistributing the 128 MB of the larger matrix takes 0.2 s.

So (:func:`preferred`) if all ranks are on one host and the matrix fits, it is gathered on rank 0, which uses the cores
of all ranks of its host while they sleep. On several hosts this is done up to the order :data:`SMALL`, below which
messages between hosts take longer than the arithmetic. In all other cases all ranks work, with ScaLAPACK or with
algorithms that consist of matrix products.

A LAPACK call cannot be stopped. So long work (:mod:`.stopping`) runs in a child process of rank 0, which is killed if
the task is cancelled or its time is up (:meth:`~.TaskContext.run_in_child`). ScaLAPACK calls MPI, which is impossible
in a child process, so it runs to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ConvergenceError
from alchemist_ray.host.memory import physical_memory
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import stopping
from alchemist_ray.mpi_backend.libraries.linalg.checks import allocated
from alchemist_ray.mpi_backend.libraries.linalg.host_cores import find_blas, ranks_here, threads_of
from alchemist_ray.mpi_backend.matrices.agreement import Agreement, wait_asleep

Array = npt.NDArray[Any]
T = TypeVar("T")

ROOT = 0
"""The rank that does the work."""

SMALL = 1000
"""The order up to which one rank does the work even if other ranks are on other hosts."""

LARGEST = 20_000
"""The largest order for one rank: above it LAPACK's workspaces, 4 n^2 elements, exceed 32-bit indices."""

_COPIES = 10
"""Largest number of copies of the matrix that LAPACK and its results, also in shared memory, need together."""


def preferred(ctx: TaskContext, shape: tuple[int, int], dtype: np.dtype[Any]) -> bool:
    """Whether one rank should factorise a dense matrix of this shape; the same on all ranks. Collective over comm."""
    if ctx.comm.size == 1 and max(shape) <= LARGEST:
        return True
    fits = shape[0] * shape[1] * dtype.itemsize * _COPIES <= physical_memory() // 2 and max(shape) <= LARGEST
    together = max(shape) <= SMALL or ranks_here(ctx.comm) == ctx.comm.size
    verdict: int = ctx.comm.allreduce(int(fits and together), MPI.MIN)
    return bool(verdict)


def gathered(A: DistMatrix) -> Array | None:
    """Return the whole of `A` in writable memory on :data:`ROOT`; None on other ranks. Collective over comm."""
    outside = DistMatrix(A.comm, A.shape, A.layout, A.local)  # keeps the copy out of the memory for results
    whole = outside.relayout("CIRC_CIRC").local
    with Agreement(A.comm):
        if A.comm.rank != ROOT:
            return None
        return whole.copy() if np.shares_memory(whole, A.local) else whole


def dealt(ctx: TaskContext, whole: Array | None, shape: tuple[int, int], dtype: np.dtype[Any]) -> DistMatrix:
    """Distribute the matrix `whole` of :data:`ROOT`, in C or Fortran order, in MC_MR; others pass None. Collective."""
    if 0 in shape:
        return allocated(ctx, shape, dtype, "MC_MR")
    flipped = ctx.comm.bcast(whole is not None and not whole.flags.c_contiguous, ROOT)
    stored = shape[::-1] if flipped else shape
    local = np.empty((0, 0), dtype)
    with Agreement(ctx.comm):
        if whole is not None:
            local = np.ascontiguousarray(whole.T if flipped else whole, dtype)
    source = DistMatrix(ctx.comm, stored, Layout.of("CIRC_CIRC", stored, ctx.comm.size), local, ctx.allocate)
    return source.transpose("MC_MR") if flipped else source.relayout("MC_MR")


def run_on(ctx: TaskContext, A: DistMatrix, count: float, work: Callable[[Array], T]) -> T | None:
    """Call `work` with the whole of `A`, which it may overwrite, and return its result like :func:`run`. Collective."""
    whole = gathered(A)
    return run(ctx, count, A.dtype, lambda: work(whole if whole is not None else np.empty(A.shape, A.dtype)))


def run(ctx: TaskContext, count: float, dtype: np.dtype[Any], work: Callable[[], T]) -> T | None:
    """Call `work` on :data:`ROOT` with the cores of all ranks; return its result there, else None. Collective.

    Parameters
    ----------
    count, dtype : float, dtype
        Approximate number of operations, and the type of their operands; long work runs in a child process.
    work : callable
        Function without arguments; it must not call MPI.

    Raises
    ------
    ConvergenceError
        On :data:`ROOT`, if NumPy or SciPy did not converge. After any error there the other ranks raise
        PeerFailedError.
    TaskCancelledError
        On every rank, if the task was cancelled during work in a child process.
    TaskKilledError
        On :data:`ROOT`, if the child process was killed.
    """
    ranks = ranks_here(ctx.comm)
    threaded = (lambda: _threaded(ranks, work)) if ctx.comm.rank == ROOT else None
    try:
        if not stopping.is_long(count, dtype):
            return _run_here(ctx, threaded)
        with Agreement(ctx.comm):
            find_blas()  # so that child processes need not
        return ctx.run_in_child(threaded)
    except np.linalg.LinAlgError as failure:
        raise ConvergenceError(ctx.task, str(failure)) from failure


def _run_here(ctx: TaskContext, work: Callable[[], T] | None) -> T | None:
    """Run `work` in this process; ranks that pass None wait. Collective over comm."""
    with Agreement(ctx.comm):
        try:
            return None if work is None else work()
        finally:  # exactly once on every rank, even after an error
            wait_asleep(ctx.comm)


def _threaded(ranks: int, work: Callable[[], T]) -> T:
    """Call `work` with the BLAS threads of `ranks` ranks together. Local."""
    with threads_of(ranks):
        return work()
