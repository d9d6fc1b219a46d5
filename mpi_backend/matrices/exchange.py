"""Move a distributed matrix from one layout to another, or to its transpose in another layout, in one planned exchange.

Every rank computes alone, from the two layouts, what it sends and receives: for each other rank, the rows and columns
that one side holds and the other wants (:mod:`.overlap`), as an outer product of nested steps. The ranks exchange no
messages to plan this. If several ranks hold the same part (STAR), a rank with its own copy uses that copy, and the
other ranks are spread over the holders, so that no holder serves them all.

The elements that go from one rank to another are cut into the same chunks on both ends. A chunk is some rows by some
columns of the target, and small enough for the cache. A chunk that is contiguous in the block is sent or received in
place; others are packed and unpacked by strided copies (:func:`.copy`). Elements that stay on their rank are copied
from block to block meanwhile. So the memory needed beyond the two blocks is that of a few chunks.

All messages are non-blocking. The messages of a rank are ordered by *step*: in step s, rank r sends to rank r + s and
receives from rank r - s. In each direction a rank has the first few unfinished messages of that order in flight. This
cannot deadlock: of all unfinished messages, the one with the smallest step (and in it the first chunk) is in flight on
both of its ends.

Sources: J. Choi, J. Dongarra and D. Walker, *Parallel matrix transpose algorithms on distributed memory concurrent
computers*, Parallel Computing 21 (1995); L. Prylli and B. Tourancheau (1997), see :mod:`alchemist_ray.layouts.overlap`.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts import tiling
from alchemist_ray.layouts.layout import AxisPart, Layout
from alchemist_ray.layouts.overlap import Overlap, Steps, Stretch

Array = npt.NDArray[Any]
AxisParts = tuple[AxisPart, AxisPart]
Counts = tuple[int, int, int]

CHUNK_BYTES = 2 * 2**20
"""Size of a message; a rank has buffers for `IN_FLIGHT` of them each way."""
IN_FLIGHT = 2
CROSSED_ROWS = 32
"""A chunk of a transpose has at least this many rows, as its rows are read across the cache lines of the source."""


@dataclass(frozen=True)
class ExchangeSide:
    """One side of an exchange, in terms of the target's rows and columns.

    Attributes
    ----------
    end : int
        0 for the side that the elements come from, 1 for the side that they go to.
    shape : (int, int)
        Shape of the stored matrix.
    layout : Layout
        Layout of the stored matrix.
    local : ndarray
        This rank's block of the stored matrix, C-ordered.
    transposed : bool
        Whether the target's rows are the columns of the stored matrix.
    """

    end: int
    shape: tuple[int, int]
    layout: Layout
    local: Array
    transposed: bool = False

    def part(self, rank: int) -> AxisParts:
        """Return the rows and columns of the target that `rank` holds on this side."""
        rows, cols = self.layout.part(self.shape, rank)
        return (cols, rows) if self.transposed else (rows, cols)

    def view(self, rows: Stretch, cols: Stretch) -> Array:
        """Return some rows by some columns as a view of the block."""
        s, t = self.local.strides
        strides = (t, s) if self.transposed else (s, t)
        return _view(self.local, strides, (rows.counts, rows.local[self.end]), (cols.counts, cols.local[self.end]))


def _view(block: Array, strides: tuple[int, int], rows: tuple[Counts, Steps], cols: tuple[Counts, Steps]) -> Array:
    (s, t), (m, i), (n, j) = strides, rows, cols
    offset = i.start * s + j.start * t
    return np.ndarray(m + n, block.dtype, block, offset, (i.period * s, i.run * s, s, j.period * t, j.run * t, t))


# --- the plan ---------------------------------------------------------------------------------------------------------


class Meeting(NamedTuple):
    """The rows by columns that this rank sends to `peer`, or receives from it."""

    peer: int
    rows: Overlap
    cols: Overlap


@dataclass(frozen=True)
class ExchangePlan:
    """One rank's part in an exchange.

    Attributes
    ----------
    outgoing, incoming : sequence of Meeting
        The elements that it sends and receives, in the order of the steps.
    own : sequence of Meeting
        The elements that it keeps: one meeting, or none.
    """

    outgoing: tuple[Meeting, ...]
    incoming: tuple[Meeting, ...]
    own: tuple[Meeting, ...]

    @classmethod
    def of(cls, source: ExchangeSide, target: ExchangeSide, rank: int, size: int) -> ExchangePlan:
        """Return the plan of `rank`. Local."""
        holders = _holders(source, size)
        overlap = functools.cache(Overlap.of)

        def meeting(peer: int, held: AxisParts, wanted: AxisParts) -> Meeting:
            return Meeting(peer, overlap(held[0], wanted[0]), overlap(held[1], wanted[1]))

        held, wanted = source.part(rank), target.part(rank)
        gets = [meeting(_sender(ranks, rank), part, wanted) for part, ranks in holders.items()]
        with_me = holders.get(held)
        served = [peer for peer in range(size) if _sender(with_me, peer) == rank] if with_me else []
        sends = [meeting(peer, held, target.part(peer)) for peer in served]
        return cls(
            outgoing=_in_steps(sends, lambda peer: (peer - rank) % size),
            incoming=_in_steps(gets, lambda peer: (rank - peer) % size),
            own=tuple(m for m in gets if m.peer == rank and m.rows.size and m.cols.size),
        )


def _in_steps(meetings: list[Meeting], step: Callable[[int], int]) -> tuple[Meeting, ...]:
    """Return the meetings with other ranks that have something to exchange, in the order of the steps."""
    found = [m for m in meetings if step(m.peer) and m.rows.size and m.cols.size]
    return tuple(sorted(found, key=lambda m: step(m.peer)))


def _holders(source: ExchangeSide, size: int) -> dict[AxisParts, list[int]]:
    """Return the different parts of the source, each with the ranks that hold it in ascending order."""
    holders: dict[AxisParts, list[int]] = {}
    for rank in range(size):
        rows, cols = source.part(rank)
        if rows.size and cols.size:
            holders.setdefault((rows, cols), []).append(rank)
    return holders


def _sender(holders: list[int], rank: int) -> int:
    """Return the holder of a part that sends it to `rank`: `rank` itself if it is one, else each holder in turn."""
    before = bisect.bisect_left(holders, rank)
    if before < len(holders) and holders[before] == rank:
        return rank
    return holders[(rank - before) % len(holders)]


# --- chunks -----------------------------------------------------------------------------------------------------------


class Chunk(NamedTuple):
    """Rows by columns of the elements that go from one rank to another: `shape` of them, beginning at `origin`."""

    peer: int
    rows: list[Stretch]
    cols: list[Stretch]
    origin: tuple[int, int]
    shape: tuple[int, int]

    def pairs(self) -> Iterator[tuple[Stretch, Stretch]]:
        """Yield the stretches of rows and of columns that make the chunk."""
        return itertools.product(self.rows, self.cols)

    def in_place(self, side: ExchangeSide) -> Array | None:
        """Return a view of the elements in the block if they are contiguous there in the order of the wire."""
        if len(self.rows) > 1 or len(self.cols) > 1:
            return None
        view = side.view(self.rows[0], self.cols[0])
        return view.reshape(-1) if view.flags.c_contiguous else None

    def pack(self, side: ExchangeSide, packed: Array) -> None:
        """Copy the elements from the block to `packed`."""
        for rows, cols in self.pairs():
            tiling.copy(self._in(packed, rows, cols), side.view(rows, cols))

    def unpack(self, packed: Array, side: ExchangeSide) -> None:
        """Copy the elements from `packed` to the block."""
        for rows, cols in self.pairs():
            tiling.copy(side.view(rows, cols), self._in(packed, rows, cols))

    def _in(self, packed: Array, rows: Stretch, cols: Stretch) -> Array:
        (i, j), (_, width) = self.origin, self.shape
        row = rows.ordinal._replace(start=rows.ordinal.start - i)
        col = cols.ordinal._replace(start=cols.ordinal.start - j)
        return _view(packed, (width * packed.itemsize, packed.itemsize), (rows.counts, row), (cols.counts, col))


def _chunks(meetings: Iterable[Meeting], itemsize: int, crossed: bool) -> Iterator[Chunk]:
    """Cut the elements of each meeting into chunks, which are the same on both ends."""
    for peer, rows, cols in meetings:
        height, width = _chunk_shape((rows.size, cols.size), itemsize, CROSSED_ROWS if crossed else 1)
        for j in range(0, cols.size, width):
            w = min(width, cols.size - j)
            across = list(cols.cut(j, j + w))
            for i in range(0, rows.size, height):
                h = min(height, rows.size - i)
                yield Chunk(peer, list(rows.cut(i, i + h)), across, (i, j), (h, w))


def _chunk_shape(shape: tuple[int, int], itemsize: int, least_rows: int) -> tuple[int, int]:
    """Return the rows and columns of a chunk: whole rows, unless fewer than `least_rows` of them fit."""
    items = max(1, CHUNK_BYTES // itemsize)
    width = min(shape[1], max(1, items // min(least_rows, shape[0])))
    return min(shape[0], max(1, items // width)), width


# --- messages ---------------------------------------------------------------------------------------------------------


class _ChunkSlot(ABC):
    """A slot for one message in flight, with a buffer if the message needs one."""

    def __init__(self, comm: MPI.Comm, chunks: Iterator[Chunk], side: ExchangeSide) -> None:
        self._comm = comm
        self._chunks = chunks
        self._side = side
        self._buffer: Array | None = None

    def start(self) -> MPI.Request:
        """Start the next message; return a null request if there is none."""
        chunk = next(self._chunks, None)
        return MPI.REQUEST_NULL if chunk is None else self._start(chunk)

    @abstractmethod
    def finish(self) -> None:
        """Complete the message after it has been sent or received."""

    @abstractmethod
    def _start(self, chunk: Chunk) -> MPI.Request:
        """Start a message."""

    def _room(self, chunk: Chunk) -> Array:
        size = chunk.shape[0] * chunk.shape[1]
        if self._buffer is None or self._buffer.size < size:
            self._buffer = np.empty(size, self._side.local.dtype)
        return self._buffer[:size]


class _SendSlot(_ChunkSlot):
    def _start(self, chunk: Chunk) -> MPI.Request:
        packed = chunk.in_place(self._side)
        if packed is None:
            packed = self._room(chunk)
            chunk.pack(self._side, packed)
        return self._comm.Isend(packed.view(np.uint8), chunk.peer)

    def finish(self) -> None:
        """Do nothing: the packed elements have been sent, and the buffer is free."""


class _ReceiveSlot(_ChunkSlot):
    _packed: tuple[Chunk, Array] | None = None

    def _start(self, chunk: Chunk) -> MPI.Request:
        packed = chunk.in_place(self._side)
        if packed is None:
            packed = self._room(chunk)
            self._packed = chunk, packed
        return self._comm.Irecv(packed.view(np.uint8), chunk.peer)

    def finish(self) -> None:
        if self._packed is not None:
            chunk, packed = self._packed
            chunk.unpack(packed, self._side)
            self._packed = None


def exchange(comm: MPI.Comm, source: ExchangeSide, target: ExchangeSide) -> None:
    """Copy the elements of `source` to `target`. Collective over comm.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks of both layouts.
    source, target : ExchangeSide
        This rank's blocks, of one dtype; they must not overlap in memory.
    """
    plan = ExchangePlan.of(source, target, comm.rank, comm.size)
    cut = functools.partial(_chunks, itemsize=target.local.itemsize, crossed=source.transposed)
    incoming, outgoing, private = cut(plan.incoming), cut(plan.outgoing), _private(comm)
    slots: list[_ChunkSlot] = [_ReceiveSlot(private, incoming, target) for _ in range(IN_FLIGHT)]
    slots += [_SendSlot(private, outgoing, source) for _ in range(IN_FLIGHT)]
    requests = [slot.start() for slot in slots]
    for chunk in cut(plan.own):
        for rows, cols in chunk.pairs():
            tiling.copy(target.view(rows, cols), source.view(rows, cols))
        index, done = MPI.Request.Testany(requests)
        if done:
            _go_on(slots, requests, index)
    while (index := MPI.Request.Waitany(requests)) != MPI.UNDEFINED:
        _go_on(slots, requests, index)


def _go_on(slots: list[_ChunkSlot], requests: list[MPI.Request], index: int) -> None:
    """Finish a message that has been sent or received, and start the next one in its slot."""
    if index != MPI.UNDEFINED:
        slots[index].finish()
        requests[index] = slots[index].start()


def _private(comm: MPI.Comm) -> MPI.Comm:
    """Return a communicator of the same ranks that only this module uses. Collective the first time.

    It is kept as an attribute of `comm`, and freed with it.
    """
    private = cast("MPI.Comm | None", comm.Get_attr(_private_key()))
    if private is None:
        private = comm.Dup()
        comm.Set_attr(_private_key(), private)
    return private


@functools.cache
def _private_key() -> int:
    return MPI.Comm.Create_keyval(delete_fn=lambda comm, key, private: private.Free())
