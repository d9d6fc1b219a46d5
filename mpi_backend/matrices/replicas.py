"""Copies of the same elements on several ranks, for layouts with STAR.

Senders write to one of the ranks that hold the same part (:meth:`Layout.is_source`). Before a task first uses the
matrix, the other ranks get the part from that rank over MPI. So a client sends each element once, however many ranks
hold it, and the copies cannot differ.
"""

from __future__ import annotations

import numpy as np

from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix

_LOT = 2**28
"""Bytes of one broadcast: MPI counts in 32 bits."""


def replicate(A: DistMatrix) -> None:
    """Copy each part of `A` from its source to the other ranks that hold it. Collective over comm."""
    comm, layout = A.comm, A.layout
    holders = comm.Split(A.rows.position * A.cols.stride + A.cols.position, not layout.is_source(comm.rank))
    try:
        octets = A.local.reshape(-1).view(np.uint8)
        for start in range(0, octets.size, _LOT):
            holders.Bcast(octets[start : start + _LOT], root=0)
    finally:
        holders.Free()
