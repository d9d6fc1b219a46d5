"""An MPI program for two ways to run it: a library with one task, and a program for ``mpiexec``.

It times reductions of 8 bytes and of 8 MB over all ranks, and the product of two matrices of order 2000 whose rows the
ranks share. Each time is the median of several, on the slowest rank.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import TaskContext, task

ORDER = 2000
SMALL_REDUCTIONS, LARGE_REDUCTIONS = 1000, 3
"""Reductions in one measurement, so that it takes some 30 ms."""


@task
def measure_all(ctx: TaskContext) -> dict:
    """Return the seconds of each operation."""
    return measure(ctx.comm)


def measure(comm: MPI.Comm) -> dict[str, float]:
    """Return the seconds of each operation. Collective over comm."""
    small, large = _reductions(comm, 1, SMALL_REDUCTIONS), _reductions(comm, 10**6, LARGE_REDUCTIONS)
    return {
        "allreduce 8 B": _seconds(comm, 31, small) / SMALL_REDUCTIONS,
        "allreduce 8 MB": _seconds(comm, 9, large) / LARGE_REDUCTIONS,
        f"gemm {ORDER}": _seconds(comm, 3, _product(comm)),
    }


def _seconds(comm: MPI.Comm, count: int, action: Callable[[], object]) -> float:
    """Return the median of the seconds of `count` calls, after one that does not count. Collective over comm."""
    found: list[float] = []
    for _ in range(count + 1):
        comm.Barrier()
        started = MPI.Wtime()
        action()
        found.append(comm.allreduce(MPI.Wtime() - started, MPI.MAX))
    return statistics.median(found[1:])


def _reductions(comm: MPI.Comm, length: int, count: int) -> Callable[[], object]:
    """Return a function that adds up a vector of all ranks, `count` times."""
    values, total = np.ones(length), np.ones(length)

    def reduce() -> None:
        for _ in range(count):
            comm.Allreduce(values, total)

    return reduce


def _product(comm: MPI.Comm) -> Callable[[], object]:
    """Return a function that computes this rank's rows of A B. Each rank has the same rows of A and of B."""
    rng = np.random.default_rng(comm.rank)
    A, B = (rng.standard_normal((ORDER // comm.size, ORDER)) for _ in range(2))
    gathered, C = np.ones((ORDER, ORDER)), np.ones_like(A)

    def multiply() -> None:
        comm.Allgather(B, gathered)
        np.matmul(A, gathered, out=C)

    return multiply


def main() -> None:
    """Measure, and print the seconds as JSON."""
    if MPI.Query_thread() != MPI.THREAD_MULTIPLE:
        raise RuntimeError("MPI was started with less thread support than in the ranks of a session")
    found = measure(MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
