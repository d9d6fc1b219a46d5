"""Serve the parts of matrices to whoever holds the session's ticket: the data plane of one worker.

One thread a connection, each blocked in its socket when there is nothing to do. None of them calls MPI, and none
touches the task thread: copying and receiving release the interpreter lock, so data moves while a task computes.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.channel import Channel
from alchemist_ray.errors import AlchemistError, ProtocolError, RegionError, RemoteProtocolError, RemoteTaskError
from alchemist_ray.mpi_backend.arena import Arena
from alchemist_ray.mpi_backend.store import Rectangle, Store, StoredMatrix
from alchemist_ray.protocol import messages as m
from alchemist_ray.spec import MatrixSpec

Array = npt.NDArray[Any]

BUFFER_BYTES = 4 * 2**20
"""Size of the buffer through which a part passes whose rows are not adjacent in memory."""

log = logging.getLogger("alchemist.matrices")


class MatrixService:
    """Answers the requests of one connection.

    Parameters
    ----------
    channel : Channel
        The connection, open.
    store : Store
        This worker's matrices.
    rank, host : int, str
        Of this worker, for errors.
    """

    def __init__(self, channel: Channel, store: Store, rank: int, host: str) -> None:
        self._channel = channel
        self._store = store
        self._rank = rank
        self._host = host
        self._pinned: dict[int, StoredMatrix] = {}
        self._answers: dict[type[m.Message], Callable[[Any], m.Message | None]] = {
            m.MapArena: self._map_arena,
            m.CreateMatrix: self._create,
            m.WriteBlock: self._write,
            m.ReadBlock: self._read,
            m.PinMatrix: self._pin,
            m.UnpinMatrix: self._unpin,
            m.CheckMatrix: self._check,
            m.FreeMatrices: self._free,
        }

    def run(self) -> None:
        """Serve until the client closes the connection."""
        try:
            while True:
                self._serve(self._channel.receive())
        except (OSError, ProtocolError) as ended:
            log.debug("connection ended: %s", ended)
        finally:
            # What this client was still writing nobody else knows how to complete.
            self._store.free([stored.matrix_id for stored in self._pinned.values() if not stored.complete])
            self._pinned.clear()
            self._channel.close()

    def _serve(self, request: Any) -> None:
        try:
            reply = self._answers[type(request)](request)
        except AlchemistError as error:
            reply = m.Failure.of(request.request, error, self._rank, self._host)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours must reach the client, not end the worker
            wrapped = RemoteTaskError(type(request).__name__, type(error).__name__, str(error))
            reply = m.Failure.of(request.request, wrapped, self._rank, self._host, traceback.format_exc())
        self._channel.drop_payload()
        if reply is not None:
            self._channel.send(reply)

    def _map_arena(self, request: m.MapArena) -> None:
        if not self._channel.is_local:
            raise RemoteProtocolError("memory is shared over a Unix socket only")
        arena: Arena = self._store.arena
        self._channel.send_with_fd(m.Done(request.request, arena.capacity), arena.fd)

    def _create(self, request: m.CreateMatrix) -> m.Message:
        stored = self._store.create(request.matrix_id, MatrixSpec.from_wire(request.spec))
        # Pinned while this connection writes it in place, so that the memory is not dealt out again under the writer.
        if not stored.complete:
            self._pinned[request.matrix_id] = stored
        return m.Done(request.request, self._store.arena.offset_of(stored.local))

    def _write(self, request: m.WriteBlock) -> m.Message:
        part = Rectangle(request.i0, request.i1, request.j0, request.j1)
        stored, view = self._store.claim(request.matrix_id, part)
        try:
            expected = 0 if request.mapped else view.nbytes
            if self._channel.connection.payload_left != expected:
                raise RegionError(
                    stored.matrix_id,
                    stored.region(part),
                    f"has {expected:,} bytes, but {self._channel.connection.payload_left:,} were sent",
                )
            seconds = (0.0, 0.0) if request.mapped else self._receive_into(view)
        except BaseException:
            self._store.disclaim(stored, part)
            raise
        self._store.written(stored, part)
        if stored.complete:
            self._pinned.pop(request.matrix_id, None)
        return m.Done(request.request, list(seconds))

    def _receive_into(self, view: Array) -> tuple[float, float]:
        """Fill `view` from the payload; return the seconds spent receiving and placing."""
        started = time.perf_counter()
        if view.flags.c_contiguous:
            self._channel.receive_payload_into(_octets(view))
            return time.perf_counter() - started, 0.0
        placing = 0.0
        for rows, buffer in _row_chunks(view):
            self._channel.receive_payload_into(_octets(buffer))
            placed = time.perf_counter()
            np.copyto(rows, buffer)
            placing += time.perf_counter() - placed
        return time.perf_counter() - started - placing, placing

    def _read(self, request: m.ReadBlock) -> None:
        started = time.perf_counter()
        stored = self._store.get_complete(request.matrix_id)
        view = self._store.view(stored, Rectangle(request.i0, request.i1, request.j0, request.j1))
        reply = m.Block(request.request, time.perf_counter() - started)
        if view.flags.c_contiguous:
            self._channel.send(reply, [_octets(view)] if view.size else [], view.nbytes)
            return
        self._channel.send(reply, [], view.nbytes)
        for rows, buffer in _row_chunks(view):
            np.copyto(buffer, rows)
            self._channel.sock.sendall(_octets(buffer))

    def _pin(self, request: m.PinMatrix) -> m.Message:
        stored = self._store.get_complete(request.matrix_id)
        self._pinned[request.matrix_id] = stored
        return m.Done(request.request, self._store.arena.offset_of(stored.local))

    def _unpin(self, request: m.UnpinMatrix) -> m.Message:
        self._pinned.pop(request.matrix_id, None)
        return m.Done(request.request)

    def _check(self, request: m.CheckMatrix) -> m.Message:
        self._store.get_complete(request.matrix_id)
        return m.Done(request.request)

    def _free(self, request: m.FreeMatrices) -> m.Message:
        for matrix_id in request.matrix_ids:
            self._pinned.pop(matrix_id, None)
        return m.Done(request.request, self._store.free(request.matrix_ids))


def _octets(array: Array) -> memoryview:
    """Return the bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _row_chunks(view: Array) -> list[tuple[Array, Array]]:
    """Cut `view` into runs of rows; return each with (its part of) one buffer to pass them through."""
    height = max(1, BUFFER_BYTES // max(1, view[:1].nbytes))
    buffer = np.empty((min(height, view.shape[0]), view.shape[1]), view.dtype)
    chunks = []
    for start in range(0, view.shape[0], height):
        rows = view[start : start + height]
        chunks.append((rows, buffer[: rows.shape[0]]))
    return chunks
