"""The cores of a host, for the one of its ranks that computes while the others sleep."""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager
from typing import Any, cast

from mpi4py import MPI


def ranks_here(comm: MPI.Comm) -> int:
    """Return the number of ranks on this rank's host. Collective over comm at the first call, then cached."""
    if comm.size == 1:
        return 1
    known = cast("int | None", comm.Get_attr(_ranks_key()))
    if known is None:
        here = comm.Split_type(MPI.COMM_TYPE_SHARED)
        known = here.size
        here.Free()
        comm.Set_attr(_ranks_key(), known)
    return known


def threads_of(ranks: int) -> AbstractContextManager[Any]:
    """Return a context with the BLAS threads of `ranks` ranks together, at most one for each core. Local."""
    blas = find_blas()
    each = max((pool.num_threads for pool in blas.lib_controllers), default=1)
    return cast("AbstractContextManager[Any]", blas.limit(limits=min(each * ranks, len(os.sched_getaffinity(0)))))


@functools.cache
def find_blas() -> Any:
    """Return the BLAS libraries of NumPy and SciPy. Cached, because the search takes more than a millisecond."""
    import scipy.linalg  # noqa: F401 - loads its BLAS
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@functools.cache
def _ranks_key() -> int:
    return MPI.Comm.Create_keyval()
