"""Move a matrix between its layout and the slabs of rows that the ranks read from a file or write to a file.

A file stores a matrix row by row (or chunk by chunk), and a layout distributes its elements in blocks. The two meet in
*slabs*: rectangles of a few MiB, of whole rows if these are short enough, each read or written by one rank in one
operation. A :class:`.Schedule` assigns the slabs to ranks and to *windows*; in each window every rank has one slab.

reading
    Each rank reads its slab and sends to every other rank the elements which that rank holds. The elements of one slab
    are some local rows times some (mostly all) local columns of the receiver, so they are received in place.
writing
    Each rank sends its elements of every other rank's slab from their place in the matrix, and assembles the slab that
    it writes. If a layout holds elements several times, one copy is sent, or none if the writer has its own.

A slab that lies completely on the rank, in the order of the file, is read directly into the matrix and written directly
from it. So any layout works, one rank accesses each byte of the file once, and each rank needs the memory of two slabs
beyond the matrix.

File access can fail on a single rank (a broken file, a full disk). So in every window it is done in an
:class:`~alchemist_ray.mpi_backend.matrices.agreement.Agreement`, and no message is in flight meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts import tiling
from alchemist_ray.layouts.layout import AxisPart
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix
from alchemist_ray.mpi_backend.matrices.slab_schedules import FileSlab, Schedule

Array = npt.NDArray[Any]

_TAG = 11


Access = Callable[[FileSlab, Array], None]
"""Fills a C-ordered array with a slab of a file, or writes the array to the file. Local; may raise anything."""

Report = Callable[[int, int], None]
"""``report(done, total)``, in windows. Local; may raise anything."""


Look = Callable[[], None]
"""Raises on all ranks, or on none. Collective."""


def _go_on() -> None:
    """Never stop."""


class SlabStream:
    """Moves one matrix from slabs or to slabs.

    Parameters
    ----------
    A : DistMatrix
        The matrix.
    schedule : Schedule
        The slabs of each rank; the same schedule on all ranks.
    """

    def __init__(self, A: DistMatrix, schedule: Schedule) -> None:
        self._comm, self._rank = A.comm, A.comm.rank
        self._local = A.local
        self._schedule = schedule
        self._parts = [A.layout.part(A.shape, rank) for rank in range(A.comm.size)]
        self._others = [rank for rank in range(A.comm.size) if rank != self._rank]
        # Ranks that hold the same part exchange nothing.
        strangers = [rank for rank in self._others if self._parts[rank] != self._parts[self._rank]]
        self._givers = [rank for rank in strangers if A.layout.is_source(rank)]
        self._takers = strangers if A.layout.is_source(self._rank) else []
        self._scratch = _Scratch(A.dtype, schedule.largest)

    def fill(self, read: Access, report: Report, look: Look = _go_on) -> None:
        """Fill every copy of the matrix with the slabs that `read` returns. Collective over comm.

        Before each window all ranks call `look`, which raises on all of them to stop.

        Raises
        ------
        PeerFailedError
            If `read` or `report` failed on another rank. A rank on which it failed raises its own error.
        """
        windows = self._schedule.windows
        for window in range(windows):
            look()
            slabs = [self._schedule.slab(rank, window) for rank in range(self._comm.size)]
            mine = slabs[self._rank]
            with Agreement(self._comm):
                block, in_place = self._block_of(mine)
                if mine.area:
                    read(mine, block)
                report(window + 1, windows)
            held = ((rank, self._held(self._rank, slabs[rank])) for rank in self._others)
            requests = [self._post(self._comm.Irecv, part, rank) for rank, part in held if part.area]
            requests += [self._comm.Isend([piece, MPI.BYTE], rank, _TAG) for rank, piece in self._packed(mine, block)]
            if not in_place:
                self._scatter_own(mine, block)
            MPI.Request.Waitall(requests)

    def drain(self, write: Access, report: Report, look: Look = _go_on) -> None:
        """Pass the slabs of the matrix to `write`. Collective over comm.

        Before each window all ranks call `look`, which raises on all of them to stop.

        Raises
        ------
        PeerFailedError
            If `write` or `report` failed on another rank. A rank on which it failed raises its own error.
        """
        windows = self._schedule.windows
        for window in range(windows):
            look()
            slabs = [self._schedule.slab(rank, window) for rank in range(self._comm.size)]
            mine = slabs[self._rank]
            block, in_place = self._block_of(mine)
            arriving = list(self._places(mine, block))
            requests = [self._comm.Irecv([place, MPI.BYTE], rank, _TAG) for rank, _, place in arriving]
            held = ((rank, self._held(self._rank, slabs[rank])) for rank in self._takers)
            requests += [self._post(self._comm.Isend, part, rank) for rank, part in held if part.area]
            if not in_place:
                self._gather_own(mine, block)
            MPI.Request.Waitall(requests)
            with Agreement(self._comm):
                for rank, part, place in arriving:
                    if self._piece(mine, block, rank, part) is None:
                        tiling.gather(place, block, *self._parts[rank], part.corner, mine.corner)
                if mine.area:
                    write(mine, block)
                report(window + 1, windows)

    # --- the place of a slab's elements -------------------------------------------------------------------------------

    def _held(self, rank: int, slab: FileSlab) -> FileSlab:
        """Return the part of a slab that `rank` holds, in local indices."""
        rows, cols = self._parts[rank]
        i0, i1 = rows.local_range(min(slab.i0, rows.extent), min(slab.i1, rows.extent))
        j0, j1 = cols.local_range(min(slab.j0, cols.extent), min(slab.j1, cols.extent))
        return FileSlab(i0, i1, j0, j1)

    def _block_of(self, slab: FileSlab) -> tuple[Array, bool]:
        """Return an array for a slab of this rank, and whether it is the slab's own place in the matrix."""
        self._scratch.clear()
        held = self._held(self._rank, slab)
        place = held.of(self._local)
        if held.area == slab.area and place.flags.c_contiguous:
            return place, True
        return self._scratch.take(slab.shape), False

    def _piece(self, slab: FileSlab, block: Array, rank: int, held: FileSlab) -> Array | None:
        """Return the part of a slab that `rank` holds as a view of `block`, or None if it is not contiguous there."""
        rows, cols = self._parts[rank]
        i0, i1 = rows.to_global(held.i0) - slab.i0, rows.to_global(held.i1 - 1) + 1 - slab.i0
        j0, j1 = cols.to_global(held.j0) - slab.j0, cols.to_global(held.j1 - 1) + 1 - slab.j0
        piece = block[i0:i1, j0:j1]
        return piece if piece.shape == held.shape and piece.flags.c_contiguous else None

    def _packed(self, slab: FileSlab, block: Array) -> Iterator[tuple[int, Array]]:
        """Yield each other rank that holds some elements of a slab, with these elements."""
        packed: dict[tuple[AxisPart, AxisPart], Array] = {}  # ranks that hold the same part get the same array
        for rank in self._others:
            held = self._held(rank, slab)
            if not held.area:
                continue
            piece = packed.get(self._parts[rank])
            if piece is None:
                piece = self._piece(slab, block, rank, held)
            if piece is None:
                piece = self._scratch.take(held.shape)
                tiling.scatter(block, piece, *self._parts[rank], held.corner, slab.corner)
            packed[self._parts[rank]] = piece
            yield rank, piece

    def _places(self, slab: FileSlab, block: Array) -> Iterator[tuple[int, FileSlab, Array]]:
        """Yield each rank that sends elements of a slab, its part, and a place to receive it."""
        for rank in self._givers:
            held = self._held(rank, slab)
            if held.area:
                piece = self._piece(slab, block, rank, held)
                yield rank, held, self._scratch.take(held.shape) if piece is None else piece

    def _scatter_own(self, slab: FileSlab, block: Array) -> None:
        held = self._held(self._rank, slab)
        tiling.scatter(block, held.of(self._local), *self._parts[self._rank], held.corner, slab.corner)

    def _gather_own(self, slab: FileSlab, block: Array) -> None:
        held = self._held(self._rank, slab)
        tiling.gather(held.of(self._local), block, *self._parts[self._rank], held.corner, slab.corner)

    def _post(self, transfer: Callable[..., MPI.Request], held: FileSlab, rank: int) -> MPI.Request:
        """Start to send or receive elements in place in the matrix."""
        place = held.of(self._local)
        if place.flags.c_contiguous:
            return transfer([place, MPI.BYTE], rank, _TAG)
        itemsize, width = self._local.itemsize, self._local.shape[1]
        strips = MPI.BYTE.Create_vector(held.shape[0], held.shape[1] * itemsize, width * itemsize).Commit()
        request = transfer([self._local.reshape(-1)[held.i0 * width + held.j0 :], 1, strips], rank, _TAG)
        strips.Free()  # MPI keeps the type until the transfer has ended
        return request


class _Scratch:
    """Memory for one window: a slab, and its elements by rank.

    Pages are reused from window to window, and pages that no window needs are never touched.
    """

    def __init__(self, dtype: np.dtype[Any], largest: int) -> None:
        self._memory = np.empty(2 * largest, dtype)
        self._taken = 0

    def clear(self) -> None:
        """Take back all arrays."""
        self._taken = 0

    def take(self, shape: tuple[int, int]) -> Array:
        """Return an array with arbitrary contents."""
        start = self._taken
        self._taken += shape[0] * shape[1]
        return self._memory[start : self._taken].reshape(shape)
