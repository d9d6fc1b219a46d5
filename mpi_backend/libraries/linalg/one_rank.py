"""Factorisations that one rank does faster than all of them.

The two-sided reductions (to tridiagonal, bidiagonal and Hessenberg form), with which dense solvers for eigenvalues and
singular values begin, do half of their work in products of a matrix with a vector. Those run at the speed of memory,
which all ranks of a host share. So on one host ScaLAPACK has nothing to win over LAPACK with as many threads, and
loses: at n = 4000 on two ranks p?syevd took 11 s where LAPACK's ?syevr with two threads took 8.5 s, p?gesvd at 2000
5.1 s against 2.8 s, and the 128 MB of such a matrix are gathered and dealt in 0.2 s.

Hence the choice (:func:`preferred`): where all ranks are on one host and the matrix fits, it is gathered on rank 0,
which uses the cores of all ranks of its host, while these wait without spinning. Over several hosts the same is done up
to an order of :data:`SMALL`, at which messages between hosts take longer than the arithmetic. Everything else is done
by all ranks, with ScaLAPACK or algorithms made of products.

LAPACK cannot be stopped. So long work (:mod:`.stopping`) is done in a child process of rank 0, which is killed when the
task is cancelled or its time is up (:meth:`~.TaskContext.run_in_child`). ScaLAPACK calls MPI, which a child cannot: it
runs to its end.
"""

from __future__ import annotations

import os
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
from alchemist_ray.mpi_backend.matrices.agreement import Agreement, wait_asleep

Array = npt.NDArray[Any]
T = TypeVar("T")

ROOT = 0
"""The rank that does the work."""

SMALL = 1000
"""The order up to which one rank does the work even if there are ranks on other hosts."""

LARGEST = 20_000
"""The order from which on it is left to all ranks: LAPACK's workspaces, 4 n^2 elements, outgrow 32-bit indices."""

_COPIES = 10
"""Copies of the matrix that LAPACK and its results, with those in shared memory, may need together, at most."""


def preferred(ctx: TaskContext, shape: tuple[int, int], dtype: np.dtype[Any]) -> bool:
    """Whether a dense factorisation of such a matrix is for one rank; the same on all ranks. Collective over comm."""
    if ctx.comm.size == 1 and max(shape) <= LARGEST:
        return True
    fits = shape[0] * shape[1] * dtype.itemsize * _COPIES <= physical_memory() // 2 and max(shape) <= LARGEST
    together = max(shape) <= SMALL or _ranks_here(ctx.comm) == ctx.comm.size
    verdict: int = ctx.comm.allreduce(int(fits and together), MPI.MIN)
    return bool(verdict)


def gathered(A: DistMatrix) -> Array | None:
    """Return all of `A`, in memory that may be overwritten, on :data:`ROOT`; None elsewhere. Collective over comm."""
    outside = DistMatrix(A.comm, A.shape, A.layout, A.local)  # not in the memory that results are served from
    whole = outside.relayout("CIRC_CIRC").local
    with Agreement(A.comm):
        if A.comm.rank != ROOT:
            return None
        return whole.copy() if np.shares_memory(whole, A.local) else whole


def dealt(ctx: TaskContext, whole: Array | None, shape: tuple[int, int], dtype: np.dtype[Any]) -> DistMatrix:
    """Return the matrix that :data:`ROOT` passes in C or Fortran order, the others None, in MC_MR. Collective."""
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
    """Return, as :func:`run`, what `work` makes of all of `A`; it may overwrite what it is given. Collective."""
    whole = gathered(A)
    return run(ctx, count, A.dtype, lambda: work(whole if whole is not None else np.empty(A.shape, A.dtype)))


def run(ctx: TaskContext, count: float, dtype: np.dtype[Any], work: Callable[[], T]) -> T | None:
    """Return what `work` returns on :data:`ROOT`, which has the cores of all; None elsewhere. Collective over comm.

    Parameters
    ----------
    count, dtype : float, dtype
        How many operations on elements of which type it takes, roughly: if that is long, in a child process.
    work : callable
        Is called with no arguments; must not call MPI.

    Raises
    ------
    ConvergenceError
        On :data:`ROOT`, if NumPy or SciPy found none; on the others, as after any error there, PeerFailedError.
    TaskCancelledError
        On every rank, if the task was cancelled while a child process worked.
    TaskKilledError
        On :data:`ROOT`, if that was killed.
    """
    ranks = _ranks_here(ctx.comm)
    threaded = (lambda: _threaded(ranks, work)) if ctx.comm.rank == ROOT else None
    try:
        if not stopping.is_long(count, dtype):
            return _run_here(ctx, threaded)
        with Agreement(ctx.comm):
            _load()
        return ctx.run_in_child(threaded)
    except np.linalg.LinAlgError as failure:
        raise ConvergenceError(ctx.task, str(failure)) from failure


def _run_here(ctx: TaskContext, work: Callable[[], T] | None) -> T | None:
    """Run `work` in this process, on the ranks that have some; the others wait. Collective over comm."""
    with Agreement(ctx.comm):
        try:
            return None if work is None else work()
        finally:  # on every rank once, whatever happened to it
            wait_asleep(ctx.comm)


def _load() -> None:
    """Import what :func:`_threaded` does: a child process would do so each time. Local."""
    import scipy.linalg  # noqa: F401
    import threadpoolctl  # noqa: F401


def _threaded(ranks: int, work: Callable[[], T]) -> T:
    """Do `work` with as many BLAS threads as so many `ranks` have together, but not more than there are cores."""
    import scipy.linalg  # noqa: F401 - so that its BLAS is there to be found
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController().select(user_api="blas")
    threads = ranks * max((pool.num_threads for pool in blas.lib_controllers), default=1)
    with blas.limit(limits=min(threads, len(os.sched_getaffinity(0)))):
        return work()


def _ranks_here(comm: MPI.Comm) -> int:
    """Return how many of the ranks are on this rank's host. Collective over comm."""
    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    size: int = here.size
    here.Free()
    return size
