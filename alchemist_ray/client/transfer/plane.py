"""Move matrices between this process and the workers of a group: the client's side of the data plane.

A process has one :class:`DataPlane` for each group, with one connection to each worker. A matrix, or a rectangle of it,
goes straight to the workers that hold it; large transfers use one thread for each worker. A write has three steps:
claim, write, commit. Each step is done on all workers before the next. So if one worker refuses a rectangle, no worker
has written it; and if its sender dies half way, all workers count it as missing.

In layouts with STAR several ranks hold the same elements. Only one of them is written to and read from; the ranks copy
the elements among themselves before a task first uses the matrix.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy.typing as npt

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.transfer.connection import Grant, WorkerConnection
from alchemist_ray.client.transfer.health import GroupHealth
from alchemist_ray.client.transfer.meter import Meter, TransferStoppedError
from alchemist_ray.client.transfer.missing_regions import missing_regions
from alchemist_ray.client.transfer.parts import Part
from alchemist_ray.client.transfer.requests import PendingRequest, settle
from alchemist_ray.client.transfer.times import TransferTimes
from alchemist_ray.errors import ConnectionLostError, GroupEndedError, RegionError
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec, SparseSpec
from alchemist_ray.protocol import messages as m

log = logging.getLogger("alchemist.session")

Array = npt.NDArray[Any]
T = TypeVar("T")

PARALLEL_BYTES = 2**20
"""Transfers of at least this size move to or from several workers at once."""
MAX_THREADS = 8


Held = tuple[WorkerConnection, Part]
"""A part, and the connection to the worker that holds it."""


class DataPlane:
    """The connections of this process to the matrices of a group; made by :func:`plane_of`. Thread-safe."""

    def __init__(self, address: GroupAddress) -> None:
        self.address = address
        self.health = GroupHealth(address.session_id)
        self.connections = [WorkerConnection(address, endpoint, self.health) for endpoint in address.endpoints]
        self._dropped: collections.deque[int] = collections.deque()
        threads = min(len(self.connections), os.cpu_count() or 1, MAX_THREADS)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="alchemist-transfer")
        self._aside = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="alchemist-aside")

    def run(self, operation: Callable[[], T], meter: Meter | None = None) -> T:
        """Run `operation` where interrupts cannot reach it; return its result.

        An interrupt (Ctrl-C) is raised in the main thread, at any instruction. In the middle of an exchange with a
        worker it would leave locks held and answers unread, also for all other threads. So the operations of the main
        thread run in another thread. When the main thread is interrupted, `meter` stops the transfer, the transfer
        cleans up, and then the interrupt is raised again. A second interrupt does not wait.
        """
        if threading.current_thread() is not threading.main_thread():
            return operation()
        try:
            future = self._aside.submit(operation)
        except RuntimeError:  # the interpreter is shutting down
            return operation()
        try:
            return future.result()
        except BaseException:
            if not future.done() and meter is not None:
                meter.interrupt()
            concurrent.futures.wait([future])
            raise

    def transfer(self, operation: Callable[[], T], meter: Meter) -> T:
        """Run `operation` as :meth:`run` does; if a connection breaks while its worker lives, run it once more.

        Broken connections are made again when they are used again.
        """

        def repeated() -> T:
            try:
                return operation()
            except ConnectionLostError as lost:
                log.info("a transfer begins again: %s", lost.reason)
                meter.begin_again()
                return operation()

        return self.run(repeated, meter)

    # --- writing ------------------------------------------------------------------------------------------------------

    def create(self, matrix_id: int, spec: MatrixSpec | SparseSpec, private: bool = False) -> list[int]:
        """Make room for a matrix on every worker; return where in each worker's memory its part is (0: nowhere).

        Parameters
        ----------
        matrix_id : int
            Its number.
        spec : MatrixSpec or SparseSpec
            Shape, element type and layout.
        private : bool
            Whether only this process writes it; then the matrix is freed if this process ends before it is complete.

        Raises
        ------
        MatrixMemoryError
            If a worker has no room; then no worker keeps its part.
        """
        return [grant.offset for grant in self.run(partial(self.grants, matrix_id, spec, private))]

    def grants(self, matrix_id: int, spec: MatrixSpec | SparseSpec, private: bool) -> list[Grant]:
        """Make room for a matrix on every worker; return the grants to write each worker's part, by rank.

        The same as :meth:`create`, but interrupts can reach it.
        """
        self._free_dropped()
        wire = spec.to_wire()
        try:
            asked = self._ask_all(lambda n: m.CreateMatrix(n, matrix_id, wire, private))
            return [Grant.of(matrix_id, request) for request in asked]
        except BaseException:
            self.drop(matrix_id)
            raise

    def send(self, matrix_id: int, spec: MatrixSpec, matrix: Array, meter: Meter | None = None) -> list[TransferTimes]:
        """Create a matrix and write all of it; return the times by rank.

        Raises
        ------
        MatrixMemoryError
            If a worker has no room for its part; then nothing has been sent.
        GroupDiedError
            If a worker is gone.
        """
        meter = _own(meter)
        return self.transfer(partial(self._send, matrix_id, spec, matrix, meter), meter)

    def _send(self, matrix_id: int, spec: MatrixSpec, matrix: Array, meter: Meter) -> list[TransferTimes]:
        grants = self.grants(matrix_id, spec, private=True)
        try:
            parts = self._parts(spec, spec.whole)
            return self._write(matrix_id, parts, [grants[c.endpoint.rank] for c, _ in parts], matrix, meter)
        except BaseException:
            self.drop(matrix_id)
            raise

    def write(
        self, matrix_id: int, spec: MatrixSpec, array: Array, row: int, column: int, meter: Meter | None = None
    ) -> None:
        """Write the rectangle `array` into an existing matrix, with its first element at (`row`, `column`).

        Raises
        ------
        RegionError
            If a part of it was written before, or is being written; then nothing of it has been written.
        FreedMatrixError
            If the matrix does not exist.
        GroupDiedError
            If a worker is gone.
        """
        meter = _own(meter)
        self.transfer(partial(self._claim_and_write, matrix_id, spec, array, row, column, meter), meter)

    def _claim_and_write(
        self, matrix_id: int, spec: MatrixSpec, array: Array, row: int, column: int, meter: Meter
    ) -> None:
        region = Rectangle(row, row + array.shape[0], column, column + array.shape[1])
        parts = self._parts(spec, region)
        asked = _ask_parts(partial(_claim, region), matrix_id, parts)
        claimed = [n for n, request in enumerate(asked) if request.granted and request.result() is not None]
        to_write = [parts[n] for n in claimed]
        try:
            for request in asked:
                request.result()
            if not claimed:
                raise RegionError(matrix_id, str(region), "has been written before")
        except BaseException:
            self.release(matrix_id, to_write)
            raise
        # Some workers may have committed this very region: its first sender died before it was committed everywhere.
        self._write(matrix_id, to_write, [Grant.of(matrix_id, asked[n]) for n in claimed], array, meter)

    def _write(
        self, matrix_id: int, parts: Sequence[Held], grants: Sequence[Grant], array: Array, meter: Meter
    ) -> list[TransferTimes]:
        """Write and commit parts that are claimed."""
        actions = [partial(c.write, part, grant, array, meter) for (c, part), grant in zip(parts, grants, strict=True)]
        try:
            times = self.at_once(actions, sum(part.nbytes for _, part in parts), meter)
            self.commit(parts, grants)
        except BaseException:
            self.release(matrix_id, parts)
            raise
        return times

    def commit(self, parts: Sequence[Held], grants: Sequence[Grant]) -> None:
        """Tell the workers that claimed parts are written; `grants` are their permissions.

        Raises
        ------
        ConnectionLostError
            If a connection has broken, and the claims have ended with it.
        """
        for (connection, _), grant in zip(parts, grants, strict=True):
            connection.require(grant)
        for request in _ask_parts(m.CommitBlock, grants[0].matrix_id, parts) if parts else ():
            request.result()

    def release(self, matrix_id: int, parts: Sequence[Held]) -> None:
        """Give back claims; the claims on a dead worker or a freed matrix have ended already."""
        _ask_parts(m.ReleaseBlock, matrix_id, parts)

    def missing(self, matrix_id: int, spec: MatrixSpec) -> list[Rectangle]:
        """Return the rectangles of a matrix that have not been written; neighbours are joined."""
        asked = self.run(lambda: self._ask_all_again(lambda n: m.CheckMatrix(n, matrix_id)))
        return missing_regions(
            spec, {rank: [Rectangle(*row) for row in request.result()] for rank, request in enumerate(asked)}
        )

    # --- reading ------------------------------------------------------------------------------------------------------

    def fetch(
        self,
        matrix_id: int,
        spec: MatrixSpec,
        out: Array,
        region: Rectangle | None = None,
        meter: Meter | None = None,
    ) -> list[TransferTimes]:
        """Read `region` of a matrix, by default all, into `out`, which has its shape; return the times by rank.

        Raises
        ------
        FreedMatrixError, IncompleteMatrixError
            If the workers do not have it, or not all of it.
        GroupDiedError
            If a worker is gone.
        """
        meter = _own(meter)
        return self.transfer(partial(self._fetch, matrix_id, spec, out, region or spec.whole, meter), meter)

    def _fetch(
        self, matrix_id: int, spec: MatrixSpec, out: Array, region: Rectangle, meter: Meter
    ) -> list[TransferTimes]:
        self._free_dropped()
        actions = [partial(c.read, matrix_id, part, out, meter) for c, part in self._parts(spec, region)]
        return self.at_once(actions, out.nbytes, meter)

    # --- all workers --------------------------------------------------------------------------------------------------

    def _ask_all(self, make: Callable[[int], m.Message]) -> list[PendingRequest]:
        """Send all workers the same request; return the answered requests by rank."""
        requests = [(connection, PendingRequest(make)) for connection in self.connections]
        settle(requests)
        return [request for _, request in requests]

    def _ask_all_again(self, make: Callable[[int], m.Message]) -> list[PendingRequest]:
        """Send all workers a request that may be repeated; do so over a new connection where the old one has broken."""
        asked = self._ask_all(make)
        broken = [rank for rank, request in enumerate(asked) if isinstance(request.error, ConnectionLostError)]
        if broken:
            again = [(self.connections[rank], PendingRequest(make)) for rank in broken]
            settle(again)
            for rank, (_, request) in zip(broken, again, strict=True):
                asked[rank] = request
        return asked

    def _parts(self, spec: MatrixSpec, region: Rectangle) -> list[Held]:
        """Return the parts of a rectangle, each with the connection to the worker that holds it."""
        found = []
        for rank in spec.layout.ranks_of(spec.shape, (region.i0, region.i1), (region.j0, region.j1)):
            found.append((self.connections[rank], Part.of(spec, int(rank), region)))
        return found

    def at_once(self, actions: Sequence[Callable[[], TransferTimes]], nbytes: int, meter: Meter) -> list[TransferTimes]:
        """Run `actions`, in parallel if they are large; all of them have ended when this returns or raises."""
        if len(actions) < 2 or nbytes < PARALLEL_BYTES:
            return [action() for action in actions]
        futures = [self._pool.submit(action) for action in actions]
        concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in futures):
            meter.stop()
        concurrent.futures.wait(futures)
        return _results(futures)

    def free(self, matrix_ids: list[int]) -> None:
        """Free matrices on all workers; freed ones are ignored."""
        self.run(lambda: self._free(matrix_ids))

    def _free(self, matrix_ids: list[int]) -> None:
        for request in self._ask_all_again(lambda n: m.FreeMatrices(n, matrix_ids)):
            request.result()

    def cancel(self, command: int) -> None:
        """Ask all workers to stop the task that was started as command number `command`; do not wait for them."""
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
            self._aside.submit(self._ask_all_again, lambda n: m.CancelTask(n, command))

    def drop(self, matrix_id: int) -> None:
        """Note that a matrix has no handle left; the next request frees it.

        Safe in a finalizer, which may run in the middle of anything: it takes no lock and touches no socket.
        """
        self._dropped.append(matrix_id)

    def free_dropped(self) -> None:
        """Free the matrices that have been dropped."""
        if self._dropped:
            self.run(self._free_dropped)

    def _free_dropped(self) -> None:
        dropped: list[int] = []
        with contextlib.suppress(IndexError):  # several threads may take from it
            while True:
                dropped.append(self._dropped.popleft())
        if dropped:
            try:
                self._free(dropped)
            except BaseException:
                self._dropped.extend(dropped)  # for the next request: to free a matrix twice has no effect
                raise

    def shut_down(self, reason: str) -> None:
        """End all connections; another thread that waits for an answer gets a GroupDiedError with this reason."""
        self.health.note_death(reason)
        for connection in self.connections:
            connection.shut_down()

    def forget_pages(self) -> None:
        """Take the workers' pages that this process has touched out of its memory count."""
        for connection in self.connections:
            connection.forget_pages()

    def close(self) -> None:
        """Close all connections."""
        for connection in self.connections:
            connection.close()
        self._pool.shutdown(wait=False)
        self._aside.shutdown(wait=False)


def _own(meter: Meter | None) -> Meter:
    """Return a meter for one transfer, so that it can be stopped without the others."""
    return Meter() if meter is None else Meter(meter.add)


def _ask_parts(make: Callable[..., m.Message], matrix_id: int, parts: Sequence[Held]) -> list[PendingRequest]:
    """Make the same request for every part of a rectangle; return the answered requests."""
    requests = [
        (connection, PendingRequest(partial(_block_request, make, matrix_id, part))) for connection, part in parts
    ]
    settle(requests)
    return [request for _, request in requests]


def _block_request(make: Callable[..., m.Message], matrix_id: int, part: Part, number: int) -> m.Message:
    return make(number, matrix_id, *part.bounds)


def _claim(region: Rectangle, number: int, matrix_id: int, i0: int, i1: int, j0: int, j1: int) -> m.ClaimBlock:
    return m.ClaimBlock(number, matrix_id, i0, i1, j0, j1, [region.i0, region.i1, region.j0, region.j1])


def _results(futures: list[concurrent.futures.Future[TransferTimes]]) -> list[TransferTimes]:
    """Return the results of the actions, or raise the first error that is not a consequence of another."""
    failures = [failure for future in futures if (failure := future.exception()) is not None]
    if failures:
        raise next((f for f in failures if not isinstance(f, TransferStoppedError)), failures[0])
    return [future.result() for future in futures]


_Key = tuple[int, str]
_planes: dict[_Key, DataPlane] = {}
_ended: set[_Key] = set()
_planes_lock = threading.Lock()


def _start_afresh() -> None:
    """Forget the parent's planes, in a forked child; their channels are closed already."""
    global _planes, _planes_lock
    _planes, _planes_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_start_afresh)


def _plane_key(address: GroupAddress) -> _Key:
    return address.group_id, address.ticket


def plane_of(address: GroupAddress) -> DataPlane:
    """Return this process's data plane of a group, the same one each time.

    Raises
    ------
    GroupEndedError
        If a session of this process has given the group back.
    """
    key = _plane_key(address)
    with _planes_lock:
        if key in _ended:
            raise GroupEndedError(address.session_id)
        if key not in _planes:
            _planes[key] = DataPlane(address)
        return _planes[key]


def forget_plane(address: GroupAddress, ended: bool = False) -> None:
    """Close the connections of this process to the workers of a group.

    Parameters
    ----------
    address : GroupAddress
        The group.
    ended : bool
        Whether the group's session has given it back, so that nobody can use it any more.
    """
    with _planes_lock:
        plane = _planes.pop(_plane_key(address), None)
        if ended:
            _ended.add(_plane_key(address))
    if plane is not None:
        plane.close()
