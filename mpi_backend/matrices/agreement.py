"""Make local work fail on all ranks if it fails on one.

If one rank raises alone, the others wait in MPI forever. Work that can fail on a single rank (a file that only this
rank reads, memory that only this rank lacks) goes into an :class:`Agreement`.
"""

from __future__ import annotations

import os
import time
from types import TracebackType

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import PeerFailedError

_AWAKE = 1e-4
"""Seconds for which a rank looks again and again before it begins to sleep."""

_LONGEST_NAP = 0.002
"""Seconds between two looks of a rank that has waited for long."""


def finish_asleep(request: MPI.Request) -> None:
    """Wait for a request, asleep, since the ranks that work need the cores; naps get longer with the time waited."""
    started = time.perf_counter()
    while not request.Test():
        elapsed = time.perf_counter() - started
        if elapsed < _AWAKE:
            os.sched_yield()
        else:
            time.sleep(min(elapsed / 32, _LONGEST_NAP))


def wait_asleep(comm: MPI.Comm) -> None:
    """Wait for all ranks, asleep. Collective over comm."""
    finish_asleep(comm.Ibarrier())


class Agreement:
    """A context: each rank runs the block alone; at its end all ranks learn whether any failed. Collective over comm.

    The block must not call anything collective. A rank on which it failed raises its own error. The other ranks raise
    :class:`~alchemist_ray.errors.PeerFailedError`, which names the failed rank with the highest number. So either all
    ranks run the code after the block, or none does::

        with Agreement(comm):
            source = open_on_this_rank(path)
        comm.Barrier()  # every rank has opened it

    Parameters
    ----------
    comm : MPI.Comm
        The ranks. All of them must enter the context.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mine = np.array([self._comm.rank if kind else -1], np.int32)
        worst = np.empty(1, np.int32)
        self._comm.Allreduce(mine, worst, MPI.MAX)
        if kind is None and worst[0] >= 0:
            raise PeerFailedError(int(worst[0]))
