"""Atoms as rows of a matrix, in the order of their ids.

LAMMPS deals atoms out by where they are, in an order of its own that changes as they move; a matrix in VC_STAR deals
consecutive rows. The row of an atom is the number of atoms with smaller ids, which is its id less one unless some are
missing. To find it, every rank is responsible for a range of ids: the ranks send it what ids they have there, and it
answers with their rows. From then on values go straight from who has the atom to who has the row, and back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

Array = npt.NDArray[Any]


class _Routes:
    """The way of one item each to a rank of its choice, and back. Made collectively over comm."""

    def __init__(self, comm: MPI.Comm, owners: Array) -> None:
        self._comm = comm
        self._order = np.argsort(owners, kind="stable")
        self._sent = np.bincount(owners, minlength=comm.size)
        self._received = np.empty_like(self._sent)
        comm.Alltoall(self._sent, self._received)

    def there(self, values: Array) -> Array:
        """Return the values (items first) that arrive here, ordered by the sender's rank. Collective over comm."""
        return self._exchanged(values[self._order], self._sent, self._received)

    def back(self, values: Array) -> Array:
        """Return to each item the value where it was sent. Collective over comm."""
        returned = self._exchanged(values, self._received, self._sent)
        answers = np.empty_like(returned)
        answers[self._order] = returned
        return answers

    def _exchanged(self, values: Array, sent: Array, received: Array) -> Array:
        values = np.ascontiguousarray(values)
        incoming = np.empty((int(received.sum()), *values.shape[1:]), values.dtype)
        item = MPI.BYTE.Create_contiguous(values.itemsize * int(np.prod(values.shape[1:]))).Commit()
        self._comm.Alltoallv(
            [values, (sent, _starts(sent)), item],
            [incoming, (received, _starts(received)), item],
        )
        item.Free()
        return incoming


class AtomOrder:
    """Which atom is which row. Made collectively over comm; good until atoms move to other ranks.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks.
    ids : ndarray of int
        The ids, all positive, of the atoms of this rank, in its order.

    Attributes
    ----------
    atoms : int
        How many there are on all ranks.
    """

    def __init__(self, comm: MPI.Comm, ids: Array) -> None:
        ids = ids.astype(np.int64)
        self.atoms = comm.allreduce(ids.size)
        highest = comm.allreduce(int(ids.max(initial=1)), MPI.MAX)
        by_id = _Routes(comm, (ids - 1) // -(-highest // comm.size))
        gathered = by_id.there(ids)
        rows = np.empty_like(gathered)
        first = sum(comm.allgather(gathered.size)[: comm.rank])
        rows[np.argsort(gathered)] = np.arange(first, first + gathered.size)
        rows = by_id.back(rows)
        height = max(-(-self.atoms // comm.size), 1)
        self._by_row = _Routes(comm, rows // height)
        self._places = self._by_row.there(rows) - comm.rank * height

    def to_rows(self, values: Array, local: Array) -> None:
        """Put the values of this rank's atoms where the rows lie. Collective over comm."""
        arrived = self._by_row.there(values)
        if arrived.size:  # the block of a matrix without rows has no columns either
            local[self._places] = arrived

    def from_rows(self, local: Array) -> Array:
        """Return the values of this rank's atoms, from this rank's rows. Collective over comm."""
        return self._by_row.back(local[self._places])


def _starts(counts: Array) -> Array:
    return np.cumsum(counts) - counts
