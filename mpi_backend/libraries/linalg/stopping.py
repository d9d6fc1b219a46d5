"""Where long local work stops when its task is cancelled.

Work on rows is cut into parts, and between two of them the ranks look whether to stop (:func:`in_parts`). What LAPACK
does in one call is done in a child process, which can be killed (:func:`on_each_rank`). Work of less than :data:`LONG`
operations is done as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import numpy as np

from alchemist_ray.mpi_backend.ali import TaskContext

T = TypeVar("T")

LONG = 1e10
"""Operations on real numbers that are long: half a second, of which a child process takes some 20 ms."""


def is_long(count: float, dtype: np.dtype[Any]) -> bool:
    """Whether so many operations on elements of that type are long: on complex numbers one counts as four."""
    return _real(count, dtype) >= LONG


def _real(count: float, dtype: np.dtype[Any]) -> float:
    return 4 * count if dtype.kind == "c" else count


def in_parts(ctx: TaskContext, count: float, dtype: np.dtype[Any], extent: int) -> Iterator[slice]:
    """Yield the parts of ``range(extent)`` in turn; between two of them the ranks look whether to stop.

    Collective over comm: every rank gets as many parts, which may be empty.

    Parameters
    ----------
    count, dtype : float, dtype
        How many operations on elements of which type all ranks do together; the same on all of them.
    extent : int
        Of this rank.

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
    """Return what `work` returns on this rank; if all ranks do long work, from a child process. Collective over comm.

    Parameters
    ----------
    count, dtype : float, dtype
        How many operations on elements of which type one rank does, roughly; the same number on all ranks.
    work : callable
        Must not call MPI.

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
