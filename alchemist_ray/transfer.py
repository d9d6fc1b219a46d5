"""Move matrices between this process and the workers of a group: the client's side of the data plane.

Each process has one :class:`DataPlane` a group, with one connection a worker. On one host the worker's memory is
mapped and written or read in place, one copy and no more; otherwise the elements go over TCP. Which of the two is
decided by trying: the worker's Unix socket is only there on its own host.
"""

from __future__ import annotations

import collections
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from alchemist_ray import tiling
from alchemist_ray.address import Endpoint, GroupAddress
from alchemist_ray.channel import Channel
from alchemist_ray.errors import (
    AlchemistError,
    DeadlineError,
    GroupDiedError,
    RemoteProtocolError,
    ServerUnreachableError,
)
from alchemist_ray.layout import AxisPart
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.spec import MatrixSpec
from alchemist_ray.transfer_times import TransferTimes

Array = npt.NDArray[Any]
T = TypeVar("T")
R = TypeVar("R", m.Done, m.Block)

REQUEST_SECONDS = 60.0
"""How long a worker may take to answer, and how long a transfer may stand still."""
BUFFER_BYTES = 4 * 2**20
"""Size of the buffer through which elements pass that are not adjacent in memory."""
PARALLEL_BYTES = 2**20
"""Matrices of at least this size are sent to and fetched from several workers at once."""
MAX_THREADS = 8


class WorkerConnection:
    """Our process's connection to the matrices of one worker. Thread-safe: one request at a time."""

    def __init__(self, address: GroupAddress, endpoint: Endpoint) -> None:
        self._address = address
        self.endpoint = endpoint
        self._channel: Channel | None = None
        self._arena: Array | None = None
        self._lock = threading.Lock()
        self._request = 0

    # --- requests -----------------------------------------------------------------------------------------------------

    def request(self, make: Callable[[int], m.Message]) -> Any:
        """Send the request that `make` makes of its number; return the result, or raise the error that is answered."""
        with self._lock:
            return self._exchange(make, m.Done).result

    def _exchange(self, make: Callable[[int], m.Message], expected: type[R]) -> R:
        channel = self._open()
        self._request += 1
        return _answer(self._guard(lambda: self._send_and_receive(channel, make(self._request), expected)))

    def _send_and_receive(self, channel: Channel, message: m.Message, expected: type[R]) -> R | m.Failure:
        channel.send(message)
        return self._receive(channel, expected)

    def _receive(self, channel: Channel, expected: type[R]) -> R | m.Failure:
        reply = channel.receive(REQUEST_SECONDS)
        if not isinstance(reply, (expected, m.Failure)):
            raise RemoteProtocolError(f"a {type(reply).__name__} instead of a {expected.__name__}")
        if reply.request != self._request:
            raise RemoteProtocolError(f"an answer to request {reply.request} instead of {self._request}")
        return reply

    def _guard(self, action: Callable[[], T]) -> T:
        """Run `action`, which leaves the connection with nothing outstanding, or does not return.

        When it does not, the connection is closed: what is still to come over it would be taken for the answer to the
        next request. That holds for an interrupt (Ctrl-C) as for a broken connection, which becomes an error that says
        who is gone.
        """
        try:
            return action()
        except TimeoutError as stalled:
            self._drop()
            raise DeadlineError(f"an answer of {self.endpoint}", REQUEST_SECONDS) from stalled
        except (OSError, EOFError) as lost:
            self._drop()
            raise GroupDiedError(self._address.group_id, f"{self.endpoint} closed the connection") from lost
        except BaseException:
            self._drop()
            raise

    # --- the connection -----------------------------------------------------------------------------------------------

    def _open(self) -> Channel:
        if self._channel is None:
            self._channel = open_channel(self._address, self.endpoint, Purpose.MATRICES)
            self._channel.sock.settimeout(REQUEST_SECONDS)
        return self._channel

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = self._arena = None

    def close(self) -> None:
        """Close the connection; what is mapped stays mapped for as long as arrays refer to it."""
        with self._lock:
            self._drop()

    def _mapped(self) -> Array | None:
        """Return the worker's memory as an array of bytes, or None if it is on another host."""
        channel = self._open()
        if not channel.is_local:
            return None
        if self._arena is None:
            self._arena = self._guard(lambda: self._map(channel))
        return self._arena

    def _map(self, channel: Channel) -> Array:
        self._request += 1
        channel.send(m.MapArena(self._request))
        reply, fd = channel.receive_with_fd()
        try:
            if not isinstance(reply, m.Done):
                raise RemoteProtocolError(f"a {type(reply).__name__} instead of a Done")
            memory = mmap.mmap(fd, reply.result)
        finally:
            os.close(fd)
        return np.frombuffer(memory, np.uint8)

    def _block(self, spec: MatrixSpec, offset: int, shape: tuple[int, int]) -> Array | None:
        """Return the worker's block of a matrix, in place, or None if it is on another host."""
        arena = self._mapped()
        if arena is None:
            return None
        nbytes = shape[0] * shape[1] * spec.dtype.itemsize
        block: Array = arena[offset : offset + nbytes].view(spec.dtype).reshape(shape)
        return block

    # --- matrices -----------------------------------------------------------------------------------------------------

    def write(self, matrix_id: int, spec: MatrixSpec, offset: int | None, matrix: Array) -> TransferTimes:
        """Write the worker's part of `matrix`, all of which the caller has."""
        rows, cols = spec.layout.part(spec.shape, self.endpoint.rank)
        shape = rows.size, cols.size
        if offset is None:  # the worker holds no element
            return TransferTimes(self.endpoint.worker_id)
        with self._lock:
            block = self._block(spec, offset, shape)
            if block is not None:
                started = time.perf_counter()
                tiling.scatter(matrix, block, rows, cols)
                seconds = time.perf_counter() - started
                self._exchange(lambda n: m.WriteBlock(n, matrix_id, 0, shape[0], 0, shape[1], mapped=True), m.Done)
                return TransferTimes(self.endpoint.worker_id, send=seconds)
            return self._write_stream(matrix_id, spec, matrix, rows, cols)

    def _write_stream(
        self, matrix_id: int, spec: MatrixSpec, matrix: Array, rows: AxisPart, cols: AxisPart
    ) -> TransferTimes:
        channel = self._open()
        self._request += 1
        request = m.WriteBlock(self._request, matrix_id, 0, rows.size, 0, cols.size, mapped=False)
        packing = _Stopwatch(_pack(spec, matrix, rows, cols))
        started = time.perf_counter()

        def send() -> tuple[float, m.Done | m.Failure]:
            channel.send(request, packing, rows.size * cols.size * spec.dtype.itemsize)
            return time.perf_counter() - started, self._receive(channel, m.Done)

        seconds, reply = self._guard(send)
        receive, deserialization = _answer(reply).result
        serialization = packing.seconds
        return TransferTimes(self.endpoint.worker_id, serialization, seconds - serialization, receive, deserialization)

    def read(self, matrix_id: int, spec: MatrixSpec, out: Array) -> TransferTimes:
        """Read the worker's part into its places in `out`, which is as large as the matrix."""
        rows, cols = spec.layout.part(spec.shape, self.endpoint.rank)
        shape = rows.size, cols.size
        if 0 in shape:
            return TransferTimes(self.endpoint.worker_id)
        with self._lock:
            if self._mapped() is None:
                return self._read_stream(matrix_id, spec, out, rows, cols)
            offset = self._exchange(lambda n: m.PinMatrix(n, matrix_id), m.Done).result
            block = self._block(spec, offset, shape)
            if block is None:
                raise GroupDiedError(self._address.group_id, f"{self.endpoint} has moved")
            started = time.perf_counter()
            tiling.gather(block, out, rows, cols)
            seconds = time.perf_counter() - started
            self._exchange(lambda n: m.UnpinMatrix(n, matrix_id), m.Done)
            return TransferTimes(self.endpoint.worker_id, deserialization=seconds)

    def _read_stream(
        self, matrix_id: int, spec: MatrixSpec, out: Array, rows: AxisPart, cols: AxisPart
    ) -> TransferTimes:
        started = time.perf_counter()
        reply = self._exchange(lambda n: m.ReadBlock(n, matrix_id, 0, rows.size, 0, cols.size), m.Block)
        channel = self._open()
        answered = time.perf_counter()
        placing = self._guard(lambda: _unpack(channel, spec, out, rows, cols))
        return TransferTimes(
            self.endpoint.worker_id,
            serialization=reply.seconds,
            send=answered - started,
            receive=time.perf_counter() - answered - placing,
            deserialization=placing,
        )


def _answer(reply: R | m.Failure) -> R:
    """Return a reply, or raise the error that it tells."""
    if isinstance(reply, m.Failure):
        raise reply.to_error()
    return reply


def open_channel(address: GroupAddress, endpoint: Endpoint, purpose: Purpose) -> Channel:
    """Connect to a worker: over its Unix socket if it is on this host, otherwise over TCP.

    Raises
    ------
    GroupDiedError
        If it does not answer.
    """
    key = Key.of(address.ticket)
    if address.transport == "auto":
        try:
            return Channel.open(endpoint.socket_name, purpose, key, address.group_id)
        except ServerUnreachableError:
            pass  # another host, or another container on this one
    try:
        return Channel.open((endpoint.address, endpoint.port), purpose, key, address.group_id)
    except ServerUnreachableError as gone:
        raise GroupDiedError(address.group_id, f"{endpoint} does not answer: {gone.reason}") from gone


# --- packing ----------------------------------------------------------------------------------------------------------


def _octets(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _direct(spec: MatrixSpec, matrix: Array, rows: AxisPart, cols: AxisPart) -> Array | None:
    """Return the part as a view of `matrix`, if it lies there just as it goes over the wire; otherwise None."""
    p, *more_rows = rows.pieces()
    q, *more_cols = cols.pieces()
    if more_rows or more_cols or p.count > 1 or q.count > 1 or matrix.dtype != spec.dtype:
        return None
    view = matrix[p.start : p.start + p.length, q.start : q.start + q.length]
    return view if view.flags.c_contiguous else None


def _row_ranges(spec: MatrixSpec, rows: AxisPart, cols: AxisPart) -> Iterator[tuple[int, int]]:
    """Yield ranges of local rows that fit the buffer."""
    height = max(1, BUFFER_BYTES // (cols.size * spec.dtype.itemsize))
    for start in range(0, rows.size, height):
        yield start, min(start + height, rows.size)


def _pack(spec: MatrixSpec, matrix: Array, rows: AxisPart, cols: AxisPart) -> Iterator[memoryview]:
    """Yield the bytes of a part of `matrix`, in local order."""
    direct = _direct(spec, matrix, rows, cols)
    if direct is not None:
        octets = _octets(direct)
        for start in range(0, len(octets), BUFFER_BYTES):
            yield octets[start : start + BUFFER_BYTES]
        return
    buffer: Array | None = None
    for start, stop in _row_ranges(spec, rows, cols):
        if buffer is None:
            buffer = np.empty((stop - start, cols.size), spec.dtype)
        part = buffer[: stop - start]
        tiling.scatter(matrix, part, rows, cols, (start, 0))
        yield _octets(part)


def _unpack(channel: Channel, spec: MatrixSpec, out: Array, rows: AxisPart, cols: AxisPart) -> float:
    """Receive a part of a matrix into its places in `out`; return the seconds spent placing it."""
    direct = _direct(spec, out, rows, cols)
    if direct is not None:
        channel.receive_payload_into(_octets(direct))
        return 0.0
    placing = 0.0
    buffer: Array | None = None
    for start, stop in _row_ranges(spec, rows, cols):
        if buffer is None:
            buffer = np.empty((stop - start, cols.size), spec.dtype)
        part = buffer[: stop - start]
        channel.receive_payload_into(_octets(part))
        started = time.perf_counter()
        tiling.gather(part, out, rows, cols, (start, 0))
        placing += time.perf_counter() - started
    return placing


class _Stopwatch:
    """Iterates over something, and adds up the seconds that it takes to make its items."""

    def __init__(self, items: Iterator[memoryview]) -> None:
        self._items = items
        self.seconds = 0.0

    def __iter__(self) -> Iterator[memoryview]:
        return self

    def __next__(self) -> memoryview:
        started = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - started


# --- all workers of a group -------------------------------------------------------------------------------------------


class DataPlane:
    """Our process's connections to the matrices of a group; made by :func:`plane_of`."""

    def __init__(self, address: GroupAddress) -> None:
        self.address = address
        self.connections = [WorkerConnection(address, endpoint) for endpoint in address.endpoints]
        self._dropped: collections.deque[int] = collections.deque()
        self._pool: ThreadPoolExecutor | None = None

    def send(self, matrix_id: int, spec: MatrixSpec, matrix: Array) -> list[TransferTimes]:
        """Create a matrix and write all of it; return the times by rank.

        Raises
        ------
        MatrixMemoryError
            If a worker has no room for its part; nothing has been sent, then.
        GroupDiedError
            If a worker is gone.
        """
        offsets = self.create(matrix_id, spec)
        try:
            return self._each(
                lambda c: c.write(matrix_id, spec, offsets[c.endpoint.rank], matrix), self.connections, spec.nbytes
            )
        except BaseException:
            self.drop(matrix_id)
            raise

    def create(self, matrix_id: int, spec: MatrixSpec) -> list[int | None]:
        """Make room for a matrix on every worker; return where in each worker's memory its part is.

        Raises
        ------
        MatrixMemoryError
            If a worker has no room; then none keeps any.
        """
        self.free_dropped()
        wire = spec.to_wire()
        try:
            return [c.request(lambda n: m.CreateMatrix(n, matrix_id, wire)) for c in self.connections]
        except AlchemistError:
            self.drop(matrix_id)
            raise

    def fetch(self, matrix_id: int, spec: MatrixSpec, out: Array) -> list[TransferTimes]:
        """Read all of a matrix into `out`; return the times by rank.

        Raises
        ------
        FreedMatrixError, IncompleteMatrixError
            If the workers do not have it, or not all of it.
        GroupDiedError
            If a worker is gone.
        """
        self.free_dropped()
        sources = [c for c in self.connections if spec.layout.is_source(c.endpoint.rank)]
        return self._each(lambda c: c.read(matrix_id, spec, out), sources, spec.nbytes)

    def _each(
        self, action: Callable[[WorkerConnection], TransferTimes], connections: list[WorkerConnection], nbytes: int
    ) -> list[TransferTimes]:
        """Run `action` for every connection, at once where that is worth a thread."""
        if len(connections) < 2 or nbytes < PARALLEL_BYTES:
            return [action(c) for c in connections]
        if self._pool is None:
            threads = min(len(self.connections), os.cpu_count() or 1, MAX_THREADS)
            self._pool = ThreadPoolExecutor(threads, thread_name_prefix="alchemist-transfer")
        return list(self._pool.map(action, connections))

    def free(self, matrix_ids: list[int]) -> None:
        """Free matrices on all workers; those freed before are passed over."""
        for connection in self.connections:
            connection.request(lambda n: m.FreeMatrices(n, matrix_ids))

    def drop(self, matrix_id: int) -> None:
        """Note that nobody refers to a matrix any more; it is freed with the next request.

        Safe in a finalizer, which may run in the middle of anything: it takes no lock and touches no socket.
        """
        self._dropped.append(matrix_id)

    def free_dropped(self) -> None:
        """Free the matrices that have been dropped."""
        dropped = []
        while self._dropped:
            dropped.append(self._dropped.popleft())
        if dropped:
            self.free(dropped)

    def close(self) -> None:
        """Close all connections."""
        for connection in self.connections:
            connection.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False)


_planes: dict[tuple[int, int, str], DataPlane] = {}
_planes_lock = threading.Lock()


def _plane_key(address: GroupAddress) -> tuple[int, int, str]:
    # With the process id, since a forked child must not share its parent's sockets.
    return os.getpid(), address.group_id, address.ticket


def plane_of(address: GroupAddress) -> DataPlane:
    """Return this process's data plane of a group, the same one each time."""
    key = _plane_key(address)
    with _planes_lock:
        if key not in _planes:
            _planes[key] = DataPlane(address)
        return _planes[key]


def forget_plane(address: GroupAddress) -> None:
    """Close this process's data plane of a group, if it has one."""
    with _planes_lock:
        plane = _planes.pop(_plane_key(address), None)
    if plane is not None:
        plane.close()
