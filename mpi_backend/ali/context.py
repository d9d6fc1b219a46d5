"""The context that a running task gets in addition to its arguments."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import TaskCancelledError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import child_process
from alchemist_ray.mpi_backend.matrices.agreement import Agreement, wait_asleep
from alchemist_ray.mpi_backend.matrices.distmatrix import Allocate, DistMatrix, _allocate_plain

T = TypeVar("T")


def _silent(done: float, total: float, message: str) -> None:
    """Ignore the progress."""


def _never() -> bool:
    """Return False: this task cannot be cancelled."""
    return False


def _current_directory() -> Path:
    return Path()


@dataclass(frozen=True)
class TaskContext:
    """The context of one task on one rank.

    Attributes
    ----------
    comm : MPI.Comm
        The ranks that run the task; every task is collective over it.
    task : str
        ``library.task``, for messages.
    allocate : callable
        ``allocate(shape, dtype)`` makes the local block of a matrix, in the memory from which clients read results.
    report : callable
        ``report(done, total, message)``; use :meth:`progress`.
    directories : tuple of Path
        The directories under which a task may read and write files, as named by the server's owner. Relative paths
        start at the first.
    cancelled : callable
        Whether this rank knows that the caller has cancelled the task; use :meth:`check_cancelled`.
    make_scratch : callable
        Makes this rank's scratch directory; use :attr:`scratch`.
    log : logging.Logger
        Writes to this worker's log file.
    """

    comm: MPI.Comm
    task: str = "task"
    allocate: Allocate = _allocate_plain
    report: Callable[[float, float, str], None] = _silent
    directories: tuple[Path, ...] = ()
    cancelled: Callable[[], bool] = _never
    make_scratch: Callable[[], Path] = _current_directory
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("alchemist.library"))

    def progress(self, done: float, total: float, message: str = "") -> None:
        """Tell the caller how far the task is (`done` of `total`, in any unit). Local; only rank 0's calls are sent."""
        if self.comm.rank == 0:
            self.report(done, total, message)

    def check_cancelled(self) -> None:
        """Stop the task on all ranks if its caller has cancelled it or its time is up. Collective over comm.

        A long task calls this between its steps. The call costs one small reduction. A task that never calls it runs to
        its end.

        Raises
        ------
        TaskCancelledError
            On every rank, if any rank knows that the task was cancelled.
        """
        if self.cancelled is _never:
            return
        heard = np.array([self.cancelled()], np.int8)
        self.comm.Allreduce(MPI.IN_PLACE, heard, MPI.MAX)
        if heard[0]:
            raise TaskCancelledError(self.task)

    def run_in_child(self, work: Callable[[], T] | None) -> T | None:
        """Run compiled code that cannot look whether to stop; stop it when the task is cancelled. Collective over comm.

        Each rank calls its own `work` in a fork of itself, which is killed when the caller cancels the task or its time
        is up; the ranks, their matrices and the group stay. A rank that passes None has nothing to do. All ranks wait,
        asleep, until each is done::

            spectrum = ctx.run_in_child(lambda: slow_library.transform(A.local))

        It costs some 20 ms and a copy of what is returned: use it for what takes longer than half a second.

        Parameters
        ----------
        work : callable, optional
            Must not call MPI, nor a method of `ctx`, and does not see the rank's sockets. What it changes in memory is
            lost, except in the local blocks of matrices from :attr:`allocate`, which are shared. What it returns is
            pickled; large contiguous arrays come back in shared memory.

        Returns
        -------
        object
            What this rank's `work` has returned; None without one.

        Raises
        ------
        TaskCancelledError
            On every rank, if any has heard that the task was cancelled.
        TaskKilledError
            On the rank whose child was killed, or crashed.
        PeerFailedError
            On the others, after any error of `work` on one rank.
        """
        result = None
        with Agreement(self.comm):
            try:
                if work is not None:
                    with contextlib.suppress(child_process.StoppedError):  # all ranks raise below
                        result = child_process.run(work, self.task, self.cancelled)
            finally:  # on every rank once, whatever happened to it
                wait_asleep(self.comm)
        self.check_cancelled()
        return result

    @property
    def scratch(self) -> Path:
        """The directory of this rank for temporary files, on its host; removed when the session's workers end."""
        return self.make_scratch()

    def empty(self, shape: tuple[int, int], dtype: npt.DTypeLike, layout: Layout | str) -> DistMatrix:
        """Return an uninitialised distributed matrix on the ranks of the task. Local."""
        if isinstance(layout, str):
            layout = Layout.of(layout, shape, self.comm.size)
        return DistMatrix.empty(self.comm, shape, np.dtype(dtype), layout, self.allocate)

    def from_replicated(self, A: npt.NDArray[Any], layout: Layout | str) -> DistMatrix:
        """Return `A` as a distributed matrix; every rank has the whole array. Local."""
        if isinstance(layout, str):
            layout = Layout.of(layout, (A.shape[0], A.shape[1]), self.comm.size)
        return DistMatrix.from_global(self.comm, A, layout, self.allocate)
