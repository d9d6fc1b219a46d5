"""Atoms as rows of a matrix, in the order of their ids.

LAMMPS distributes atoms by position, in its own order, which changes as they move; VC_STAR distributes consecutive
rows. The row of an atom is the number of atoms with smaller ids: its id minus one, unless ids are missing. To find the
rows, each rank is responsible for a range of ids: the other ranks send it their ids in this range, and it answers with
the rows. After that, values go directly from the rank with the atom to the rank with the row, and back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

Array = npt.NDArray[Any]


class _Routes:
    """Sends each item of a rank to the rank in `owners`, and answers back. Created collectively over comm."""

    def __init__(self, comm: MPI.Comm, owners: Array) -> None:
        self._comm = comm
        self._order = np.argsort(owners, kind="stable")
        self._sent = np.bincount(owners, minlength=comm.size)
        self._received = np.empty_like(self._sent)
        comm.Alltoall(self._sent, self._received)

    def there(self, values: Array) -> Array:
        """Send the values (items along axis 0); return those received, by sender's rank. Collective over comm."""
        return self._exchanged(values[self._order], self._sent, self._received)

    def back(self, values: Array) -> Array:
        """Send the values back; return for each item the value from where it was sent. Collective over comm."""
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
    """The row of each atom. Created collectively over comm; valid until atoms move to other ranks.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks.
    ids : ndarray of int
        The ids of this rank's atoms, all positive, in LAMMPS' order.

    Attributes
    ----------
    atoms : int
        Number of atoms on all ranks.
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
        """Write the values of all atoms to their rows; `local` is this rank's block. Collective over comm."""
        arrived = self._by_row.there(values)
        if arrived.size:  # a block without rows has no columns either
            local[self._places] = arrived

    def from_rows(self, local: Array) -> Array:
        """Return the values of this rank's atoms from the rows; `local` is this rank's block. Collective over comm."""
        return self._by_row.back(local[self._places])


def _starts(counts: Array) -> Array:
    return np.cumsum(counts) - counts
