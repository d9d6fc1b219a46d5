"""The data plane of one worker: parts of matrices for every client that holds the session's ticket.

Each connection has one thread, which blocks in its socket when it has nothing to do. These threads never call MPI and
never touch the task thread. Copying and receiving release the interpreter lock, so data moves while a task computes.

A part is written in three steps. The sender *claims* it, so that no two senders write the same elements. The sender
*writes* it, either in place (if it has mapped this worker's memory) or as a payload. The sender *commits* it after it
has written its elements on every worker that holds some. A claim ends with its connection. So if a sender dies, its
half-written part counts as missing and can be written again.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import (
    AlchemistError,
    LocalProtocolError,
    ProtocolError,
    RegionError,
    RemoteProtocolError,
    RemoteTaskError,
)
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import spec_from_wire
from alchemist_ray.mpi_backend.memory.arena import Arena
from alchemist_ray.mpi_backend.worker.store import Store, StoredMatrix
from alchemist_ray.protocol import messages as m
from alchemist_ray.transport.channel import Channel

Array = npt.NDArray[Any]

BUFFER_BYTES = 4 * 2**20
"""Size of the buffer for a part whose rows are not adjacent in memory."""
MAX_MISSING = 10_000
"""At most this many missing parts of a block are reported."""

log = logging.getLogger("alchemist.matrices")


class MatrixService:
    """Answers the requests of one connection.

    Parameters
    ----------
    channel : Channel
        The open connection.
    store : Store
        This worker's matrices.
    rank, host : int, str
        Rank and host name of this worker, for errors.
    cancel : callable
        ``cancel(command)`` asks the task that was started as that command, or an earlier one, to stop.
    """

    def __init__(
        self, channel: Channel, store: Store, rank: int, host: str, cancel: Callable[[int], None] = lambda command: None
    ) -> None:
        self._channel = channel
        self._store = store
        self._rank = rank
        self._host = host
        self._cancel = cancel
        self._pinned: dict[int, list[StoredMatrix]] = {}
        self._claims: dict[tuple[int, Rectangle], StoredMatrix] = {}
        self._regions: dict[tuple[int, Rectangle], Rectangle] = {}
        self._private: dict[int, StoredMatrix] = {}
        self._answers: dict[type[m.Message], Callable[[Any], m.Message | None]] = {
            m.MapArena: self._map_arena,
            m.CreateMatrix: self._create,
            m.ClaimBlock: self._claim,
            m.WriteBlock: self._write,
            m.CommitBlock: self._commit,
            m.ReleaseBlock: self._release,
            m.ReadBlock: self._read,
            m.PinMatrix: self._pin,
            m.UnpinMatrix: self._unpin,
            m.CheckMatrix: self._check,
            m.FreeMatrices: self._free,
            m.CancelTask: self._cancel_task,
        }

    def run(self) -> None:
        """Serve until the client closes the connection."""
        try:
            while True:
                self._serve(self._channel.receive())
        except (OSError, ProtocolError) as ended:
            log.debug("connection ended: %s", ended)
        finally:
            for (_, part), stored in self._claims.items():
                self._store.disclaim(stored, part)
            self._store.discard([stored for number, stored in self._private.items() if not self._committed(number)])
            for kept in (self._claims, self._private, self._pinned):
                kept.clear()  # or the memory of their matrices stays in use
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
            self._answer(request, reply)

    def _answer(self, request: Any, reply: m.Message) -> None:
        try:
            self._channel.send(reply)
        except LocalProtocolError as unspeakable:  # an error has an integer that is too large for the wire
            wrapped = RemoteTaskError(f"the answer to {type(request).__name__}", "OverflowError", unspeakable.reason)
            self._channel.send(m.Failure.of(request.request, wrapped, self._rank, self._host))

    def _map_arena(self, request: m.MapArena) -> None:
        if not self._channel.is_local:
            raise RemoteProtocolError("memory can be shared only over a Unix socket")
        arena: Arena = self._store.arena
        self._channel.send_with_fd(m.Done(request.request, arena.capacity), arena.fd)

    def _committed(self, matrix_id: int) -> bool:
        return all(claimed_id != matrix_id for claimed_id, _ in self._claims)

    # --- writing ------------------------------------------------------------------------------------------------------

    def _create(self, request: m.CreateMatrix) -> m.Message:
        stored = self._store.create(request.matrix_id, spec_from_wire(request.spec))
        if request.private and not stored.complete:
            part = Rectangle(0, stored.local.shape[0], 0, stored.local.shape[1])
            self._store.claim(request.matrix_id, part)
            self._claims[request.matrix_id, part] = stored
            self._private[request.matrix_id] = stored
        return m.Done(request.request, self._store.arena.offset_of(stored.local))

    def _claim(self, request: m.ClaimBlock) -> m.Message:
        part, region = _part_of(request), Rectangle(*request.region)
        if region in self._store.get(request.matrix_id).committed:
            return m.Done(request.request, None)
        # Claimed matrices are kept here, so that their memory is not reused while the writer still writes.
        stored, view = self._store.claim(request.matrix_id, part)
        self._claims[request.matrix_id, part] = stored
        self._regions[request.matrix_id, part] = region
        return m.Done(request.request, self._store.arena.offset_of(view))

    def _claimed(self, matrix_id: int, part: Rectangle) -> tuple[StoredMatrix, Rectangle]:
        """Return the matrix, and the claim of this connection that contains `part`."""
        for (claimed_id, claim), stored in self._claims.items():
            if claimed_id == matrix_id and claim.contains(part):
                return stored, claim
        reason = "was not claimed by this connection, or was lost with an earlier one: write it again"
        raise RegionError(matrix_id, f"local {part}", reason)

    def _write(self, request: m.WriteBlock) -> m.Message:
        part = _part_of(request)
        stored, _ = self._claimed(request.matrix_id, part)
        view = self._store.view(stored, part)
        sent = self._channel.connection.payload_left
        if sent != view.nbytes:
            raise RegionError(
                stored.matrix_id, stored.region(part), f"has {view.nbytes:,} bytes, but {sent:,} were sent"
            )
        return m.Done(request.request, list(self._receive_into(view)))

    def _commit(self, request: m.CommitBlock) -> m.Message:
        stored, part = self._claimed(request.matrix_id, _part_of(request))
        if part != _part_of(request):
            raise RegionError(request.matrix_id, f"local {_part_of(request)}", "is only a part of the claimed block")
        self._store.written(stored, part, self._regions.pop((request.matrix_id, part), None))
        del self._claims[request.matrix_id, part]
        if self._committed(request.matrix_id):
            self._private.pop(request.matrix_id, None)
        return m.Done(request.request)

    def _release(self, request: m.ReleaseBlock) -> m.Message:
        part = _part_of(request)
        stored = self._claims.pop((request.matrix_id, part), None)
        self._regions.pop((request.matrix_id, part), None)
        if stored is not None:
            self._store.disclaim(stored, part)
        return m.Done(request.request)

    def _receive_into(self, view: Array) -> tuple[float, float]:
        """Fill `view` from the payload; return the seconds spent receiving and placing."""
        started = time.perf_counter()
        if view.flags.c_contiguous:
            self._channel.receive_payload_into(_octets(view))
            return time.perf_counter() - started, 0.0
        placing = 0.0
        for window, buffer in _windows(view):
            self._channel.receive_payload_into(_octets(buffer))
            placed = time.perf_counter()
            np.copyto(window, buffer)
            placing += time.perf_counter() - placed
        return time.perf_counter() - started - placing, placing

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, request: m.ReadBlock) -> None:
        started = time.perf_counter()
        stored = self._store.get_complete(request.matrix_id)
        view = self._store.view(stored, _part_of(request))
        reply = m.Block(request.request, time.perf_counter() - started)
        if view.flags.c_contiguous:
            self._channel.send(reply, [_octets(view)] if view.size else [], view.nbytes)
            return
        windows = _windows(view)  # allocates its buffer, which may fail, before anything is sent
        self._channel.send(reply, [], view.nbytes)
        for window, buffer in windows:
            np.copyto(buffer, window)
            self._channel.send_bytes(_octets(buffer))

    def _pin(self, request: m.PinMatrix) -> m.Message:
        stored = self._store.get_complete(request.matrix_id)
        self._pinned.setdefault(request.matrix_id, []).append(stored)
        return m.Done(request.request, self._store.arena.offset_of(stored.local))

    def _unpin(self, request: m.UnpinMatrix) -> m.Message:
        pins = self._pinned.get(request.matrix_id, [])
        if pins:
            pins.pop()
        if not pins:
            self._pinned.pop(request.matrix_id, None)
        return m.Done(request.request)

    # --- the matrix as a whole ----------------------------------------------------------------------------------------

    def _check(self, request: m.CheckMatrix) -> m.Message:
        missing = self._store.missing(request.matrix_id)[:MAX_MISSING]
        return m.Done(request.request, [[part.i0, part.i1, part.j0, part.j1] for part in missing])

    def _cancel_task(self, request: m.CancelTask) -> m.Message:
        self._cancel(request.command)
        return m.Done(request.request)

    def _free(self, request: m.FreeMatrices) -> m.Message:
        for matrix_id in request.matrix_ids:
            self._private.pop(matrix_id, None)
        return m.Done(request.request, self._store.free(request.matrix_ids))


def _part_of(request: m.ClaimBlock | m.WriteBlock | m.CommitBlock | m.ReleaseBlock | m.ReadBlock) -> Rectangle:
    return Rectangle(request.i0, request.i1, request.j0, request.j1)


def _octets(array: Array) -> memoryview:
    """Return the bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _windows(view: Array) -> list[tuple[Array, Array]]:
    """Cut `view` into runs of rows, or pieces of a row, in order. Return each with a view of one common buffer."""
    rows, cols = view.shape
    items = max(1, BUFFER_BYTES // view.itemsize)
    height, width = (max(1, items // cols), cols) if cols <= items else (1, items)
    buffer = np.empty(min(height, rows) * width, view.dtype)
    cut = []
    for i in range(0, rows, height):
        for j in range(0, cols, width):
            window = view[i : i + height, j : j + width]
            cut.append((window, buffer[: window.size].reshape(window.shape)))
    return cut
