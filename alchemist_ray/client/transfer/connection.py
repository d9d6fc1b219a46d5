"""The connection of this process to the matrices of one worker.

On one host, the process maps the worker's memory and writes or reads it in place, with a single copy. Otherwise the
elements go over the connection. Both ends find out by trying: the worker's Unix socket exists on its own host only, and
the system may forbid the mapping.

Copies in place happen outside the connection's lock, so that many threads of a process write and read at once.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.address import Endpoint, GroupAddress
from alchemist_ray.client.transfer.health import GroupHealth
from alchemist_ray.client.transfer.meter import Meter
from alchemist_ray.client.transfer.parts import BUFFER_BYTES, Part, octets_of
from alchemist_ray.client.transfer.requests import PendingRequest, Requester, answer_of, settle
from alchemist_ray.client.transfer.times import TransferTimes
from alchemist_ray.errors import ConnectionLostError, RemoteProtocolError
from alchemist_ray.protocol import messages as m
from alchemist_ray.transport.channel import Channel

Array = npt.NDArray[Any]

BAND_BYTES = 32 * 2**20
"""Bytes that are copied in place before the transfer checks again whether it was stopped."""
STREAM_BYTES = 2**15
"""Parts up to this size are read over the connection, in one exchange; reading in place takes two."""


@dataclass(frozen=True)
class Grant:
    """The permission to write or read in place. It ends with the connection over which the worker gave it.

    Attributes
    ----------
    matrix_id : int
        The matrix.
    offset : int
        Where in the worker's memory the part, or (to read) the whole block, begins.
    channel : Channel
        The connection.
    """

    matrix_id: int
    offset: int
    channel: Channel | None

    @classmethod
    def of(cls, matrix_id: int, request: PendingRequest, start: int = 0) -> Grant:
        """Return the grant in the answer to a request, or raise the error in it.

        Parameters
        ----------
        matrix_id : int
            The matrix.
        request : PendingRequest
            The answered request.
        start : int
            Bytes from the answered offset to where the part begins.
        """
        return cls(matrix_id, (request.result() or 0) + start, request.channel)


class WorkerConnection(Requester):
    """The connection of this process to the matrices of one worker. Thread-safe."""

    def __init__(self, address: GroupAddress, endpoint: Endpoint, health: GroupHealth) -> None:
        super().__init__(address, endpoint, health)
        self._memory: Array | None = None
        self._mapping: mmap.mmap | None = None
        self._unmappable = False
        self._copying = 0
        self._idle = threading.Condition()

    # --- the connection -----------------------------------------------------------------------------------------------

    def _drop(self) -> None:
        # The claims end with the connection, and the worker may reuse their memory: wait until nobody writes there.
        with self._idle:
            self._idle.wait_for(lambda: self._copying == 0)
        super()._drop()
        self._memory = self._mapping = None

    # --- memory in place ----------------------------------------------------------------------------------------------

    def _mapped(self) -> Array | None:
        """Return the worker's memory as an array of bytes, or None if it cannot be mapped here."""
        channel = self._open()
        if not channel.is_local or self._unmappable:
            return None
        if self._memory is None:
            self._memory = self._guard(lambda: self._map(channel))
            self._unmappable = self._memory is None
        return self._memory

    def _map(self, channel: Channel) -> Array | None:
        self._request += 1
        channel.send(m.MapArena(self._request))
        try:
            reply, fd = channel.receive_with_fd()
        except RemoteProtocolError:  # the system forbids passing descriptors
            return None
        try:
            if not isinstance(reply, m.Done):
                raise RemoteProtocolError(f"a {type(reply).__name__} instead of a Done")
            self._mapping = mmap.mmap(fd, reply.result)
            return np.frombuffer(self._mapping, np.uint8)
        except OSError:  # no address space, or forbidden in this container: use the connection
            return None
        finally:
            os.close(fd)

    def forget_pages(self) -> None:
        """Take the worker's pages that this process has touched out of its memory count; their contents stay.

        The next touch of a page costs a little. Use this to write a matrix that is larger than this process may be.
        """
        mapping = self._mapping
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)

    @contextlib.contextmanager
    def _in_place(self, grant: Grant) -> Iterator[None]:
        """Keep the connection open while this process writes or reads memory that was granted over it.

        Raises
        ------
        ConnectionLostError
            If the connection has been replaced: the worker may have reused the memory.
        """
        with self._idle:
            self.require(grant)
            self._copying += 1
        try:
            yield
        finally:
            with self._idle:
                self._copying -= 1
                self._idle.notify_all()

    def require(self, grant: Grant) -> None:
        """Raise ConnectionLostError if the connection that gave the grant has been replaced."""
        if self._channel is not grant.channel:
            raise ConnectionLostError(str(self.endpoint), "it was made again meanwhile")

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, part: Part, grant: Grant, array: Array, meter: Meter) -> TransferTimes:
        """Write a part that was claimed from the rectangle `array`."""
        with self._lock:
            memory = self._mapped()
            if memory is None:
                self.require(grant)
                return self._write_stream(grant.matrix_id, part, array, meter)
        view = part.view(memory, grant.offset)
        started = time.perf_counter()
        with self._in_place(grant):
            for band in part.bands(BAND_BYTES):
                meter.check()
                band.scatter(array, _within(part, band, view))
                meter.add(band.nbytes)
        return TransferTimes(self.endpoint.worker_id, send=time.perf_counter() - started)

    def _write_stream(self, matrix_id: int, part: Part, array: Array, meter: Meter) -> TransferTimes:
        # A message is sent to its end even if the transfer is stopped, since other threads use the connection.
        meter.check()
        channel = self._open()
        self._request += 1
        request = m.WriteBlock(self._request, matrix_id, *part.bounds)
        packing = _Stopwatch(meter.metered(part.pack(array)))
        started = time.perf_counter()

        def send() -> tuple[float, m.Done | m.Failure]:
            channel.send(request, packing, part.nbytes)
            return time.perf_counter() - started, self._receive(channel, m.Done, request.request)

        seconds, reply = self._guard(send)
        receive, deserialization = answer_of(reply).result
        serialization = packing.seconds
        return TransferTimes(self.endpoint.worker_id, serialization, seconds - serialization, receive, deserialization)

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, matrix_id: int, part: Part, out: Array, meter: Meter) -> TransferTimes:
        """Read a part into its places in the rectangle `out`."""
        with self._lock:
            memory = self._mapped() if part.nbytes > STREAM_BYTES else None
            if memory is None:
                return self._read_stream(matrix_id, part, out, meter)
        request = PendingRequest(lambda n: m.PinMatrix(n, matrix_id))
        settle([(self, request)])
        grant = Grant.of(matrix_id, request)
        view = part.block.view(memory, grant.offset)
        started = time.perf_counter()
        try:
            with self._in_place(grant):
                for band in part.bands(BAND_BYTES):
                    meter.check()
                    band.gather(_within(part.block, band, view), out)
                    meter.add(band.nbytes)
        finally:
            self.request(lambda n: m.UnpinMatrix(n, matrix_id))
        return TransferTimes(self.endpoint.worker_id, deserialization=time.perf_counter() - started)

    def _read_stream(self, matrix_id: int, part: Part, out: Array, meter: Meter) -> TransferTimes:
        meter.check()
        started = time.perf_counter()
        reply = self._exchange(lambda n: m.ReadBlock(n, matrix_id, *part.bounds), m.Block)
        channel = self._open()
        answered = time.perf_counter()
        placing = self._guard(lambda: _unpack(channel, part, out, meter))
        return TransferTimes(
            self.endpoint.worker_id,
            serialization=reply.seconds,
            send=answered - started,
            receive=time.perf_counter() - answered - placing,
            deserialization=placing,
        )


def _within(part: Part, band: Part, view: Array) -> Array:
    """Return the elements of `band` in `view`, the view of `part`."""
    i, j = part.local.i0, part.local.j0
    return view[band.local.i0 - i : band.local.i1 - i, band.local.j0 - j : band.local.j1 - j]


def _unpack(channel: Channel, part: Part, out: Array, meter: Meter) -> float:
    """Receive a part into its places in `out`; return the seconds spent placing it."""
    runs = part.runs(out)
    if runs is not None:
        for octets in map(octets_of, runs):
            for start in range(0, len(octets), BAND_BYTES):
                channel.receive_payload_into(octets[start : start + BAND_BYTES])
                meter.add(len(octets[start : start + BAND_BYTES]))
        return 0.0
    placing = 0.0
    buffer = np.empty(0, part.dtype)
    for band in part.bands(BUFFER_BYTES):
        if buffer.size < band.local.area:
            buffer = np.empty(band.local.area, part.dtype)
        block = buffer[: band.local.area].reshape(band.local.shape)
        channel.receive_payload_into(octets_of(block))
        started = time.perf_counter()
        band.gather(block, out)
        placing += time.perf_counter() - started
        meter.add(band.nbytes)
    return placing


class _Stopwatch:
    """Iterates over `items` and adds up the seconds that making them takes."""

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
