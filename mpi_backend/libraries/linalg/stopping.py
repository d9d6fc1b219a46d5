"""Long local work that stops when its task is cancelled.

Work on rows is divided into parts, and between two parts the ranks check for cancellation (:func:`in_parts`). A single
LAPACK call runs in a child process, which can be killed (:func:`on_each_rank`). Work of less than :data:`LONG`
operations is neither divided nor moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import numpy as np

from alchemist_ray.mpi_backend.ali import TaskContext

T = TypeVar("T")

LONG = 1e10
"""Number of operations on real numbers that counts as long: half a second; a child process costs about 20 ms."""


def is_long(count: float, dtype: np.dtype[Any]) -> bool:
    """Whether `count` operations on elements of `dtype` are long; one on complex numbers counts as four."""
    return _real(count, dtype) >= LONG


def _real(count: float, dtype: np.dtype[Any]) -> float:
    return 4 * count if dtype.kind == "c" else count


def in_parts(ctx: TaskContext, count: float, dtype: np.dtype[Any], extent: int) -> Iterator[slice]:
    """Yield the parts of ``range(extent)`` in turn; between two parts the ranks check for cancellation.

    Collective over comm: every rank gets the same number of parts, which may be empty.

    Parameters
    ----------
    count, dtype : float, dtype
        Number of operations of all ranks together, and the type of their operands; the same on all ranks.
    extent : int
        Number of this rank's rows.

    Raises
    ------
    TaskCancelledError
        On every rank, if the task was cancelled.
    """
    parts = max(1, math.ceil(_real(count, dtype) / ctx.comm.size / LONG))
    for part in range(parts):
        if part:
            ctx.check_cancelled()
        yield slice(extent * part // parts, extent * (part + 1) // parts)


def on_each_rank(ctx: TaskContext, count: float, dtype: np.dtype[Any], work: Callable[[], T]) -> T:
    """Call `work` on every rank, in a child process if the work is long; return its result. Collective over comm.

    Parameters
    ----------
    count, dtype : float, dtype
        Approximate number of operations of one rank, and the type of their operands; the same on all ranks.
    work : callable
        Function without arguments; it must not call MPI.

    Raises
    ------
    TaskCancelledError
        On every rank, if the task was cancelled meanwhile.
    TaskKilledError
        On the rank whose child process was killed.
    """
    if not is_long(count, dtype):
        return work()
    return cast(T, ctx.run_in_child(work))
