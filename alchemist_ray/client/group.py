"""The session's end of a worker group: it loads libraries, runs tasks, sends and fetches matrices.

The functions of a library, the methods of a session and the handles all end here. This module knows nothing of the
driver: it reports the loss of the group as :class:`~.GroupDiedError`, and the session asks the driver for the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.commands import CommandStream, Limits, Watch
from alchemist_ray.client.libraries import Library
from alchemist_ray.client.matrices.computing import Computes
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.sparse import SparseMatrixHandle, send_sparse, sparse_arrays
from alchemist_ray.client.progress import ProgressDisplay
from alchemist_ray.client.transfer.meter import Meter
from alchemist_ray.client.transfer.plane import forget_plane, plane_of
from alchemist_ray.client.transfer.times import TransferTimes
from alchemist_ray.errors import ArgumentError, ForeignMatrixError, LocalProtocolError, ResultMismatchError
from alchemist_ray.layouts.spec import MatrixSpec, SparseSpec, spec_from_wire
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.descriptions import LibraryDescription, TaskDescription
from alchemist_ray.protocol.values import MatrixReference

Array = npt.NDArray[Any]

MAX_RESULTS = 1000
"""How many matrix numbers are reserved for a running task."""


class GroupClient:
    """The session's end of a worker group. Not thread-safe.

    Parameters
    ----------
    address : GroupAddress
        The group; the session owns it.
    session : AlchemistSession, optional
        The session; operators of handles run their tasks there.
    watch : Watch, optional
        Listens to the driver while a command runs.

    Raises
    ------
    GroupDiedError
        If a worker does not answer.
    """

    def __init__(self, address: GroupAddress, session: Computes | None = None, watch: Watch | None = None) -> None:
        self._session = session
        self.address = address
        self.libraries: dict[str, Library] = {}
        self._commands = CommandStream(address, watch)
        self._plane = plane_of(address)
        self._plane.health.look = watch.look if watch is not None else None
        self._next_id = 1

    def load(
        self,
        name: str,
        path: str | None,
        timeout: float | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> LibraryDescription:
        """Load a library on every worker; return its description."""
        limits = Limits(f"loading library {name}", timeout, self._plane.cancel, is_cancelled)
        replies = self._commands.run(lambda n: m.LoadLibrary(n, name, path), limits=limits)
        return LibraryDescription.from_wire(replies[0].result)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def bind(self, label: str, task: TaskDescription, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Check the arguments of a call against the task's description; return them as they go over the wire."""
        return task.bind(
            label,
            [self.to_reference(value) for value in args],
            {name: self.to_reference(value) for name, value in kwargs.items()},
        )

    def run(
        self,
        library: str,
        task: TaskDescription,
        arguments: dict[str, Any],
        make_bar: Callable[[str], ProgressDisplay],
        timeout: float | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> Any:
        """Run a task on every worker; return its result, with handles for matrices.

        The workers are asked to stop after `timeout` seconds, when `is_cancelled()` is true, or on an interrupt.
        """
        label = f"{library}.{task.name}"
        first_id, self._next_id = self._next_id, self._next_id + MAX_RESULTS  # lowered when the results arrive
        self._plane.free_dropped()
        try:
            replies = self.command(
                lambda n: m.RunTask(n, library, task.name, arguments, first_id), label, make_bar, timeout, is_cancelled
            )
        except LocalProtocolError as misfit:
            raise ArgumentError(label, misfit.reason) from misfit
        self._require_alike(label, replies)
        self._next_id = first_id + len(replies[0].matrices)
        handles = {matrix_id: self._handle(matrix_id, spec_from_wire(spec)) for matrix_id, spec in replies[0].matrices}
        result = _with_handles(replies[0].result, handles)
        return tuple(result) if isinstance(result, list) and task.returns.startswith("tuple") else result

    def command(
        self,
        make: Callable[[int], m.Message],
        task: str,
        make_bar: Callable[[str], ProgressDisplay],
        timeout: float | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> list[Any]:
        """Have every worker carry out a command, and show its progress; return the answers by rank."""
        bar = make_bar(task)
        try:
            return self._commands.run(
                make, bar, self._drop_all, Limits(task, timeout, self._plane.cancel, is_cancelled)
            )
        finally:
            bar.close()

    def cancel(self) -> None:
        """Ask the workers to stop the running task; do not wait for them. Any thread may call this."""
        self._plane.cancel(self._commands.current)

    def _require_alike(self, label: str, replies: Sequence[m.TaskDone]) -> None:
        """Raise unless every rank has returned the result of rank 0, or None, and has kept the same matrices."""
        first = replies[0]
        different = [
            rank
            for rank, reply in enumerate(replies)
            if reply.digest not in (first.digest, b"") or reply.matrices != first.matrices
        ]
        if different:
            self._drop_all(sorted({row[0] for reply in replies for row in reply.matrices}))
            raise ResultMismatchError(label, different)

    def _drop_all(self, matrix_ids: list[int]) -> None:
        for matrix_id in matrix_ids:
            self._plane.drop(matrix_id)

    def to_reference(self, value: Any) -> Any:
        """Return the wire reference for a handle, and any other value unchanged.

        Raises
        ------
        ForeignMatrixError, FreedMatrixError
            If it is a handle of another session, or of a matrix that was freed.
        """
        if not isinstance(value, MatrixHandle):
            return value
        if value.address.ticket != self.address.ticket:
            raise ForeignMatrixError(value.matrix_id, value.address.session, self.address.session)
        return value.reference()

    # --- matrices -----------------------------------------------------------------------------------------------------

    def _handle(self, matrix_id: int, spec: MatrixSpec | SparseSpec) -> MatrixHandle:
        if isinstance(spec, SparseSpec):
            return SparseMatrixHandle(matrix_id, spec, self.address, owned=True, session=self._session)
        return MatrixHandle(matrix_id, spec, self.address, owned=True, session=self._session)

    def _next(self) -> int:
        matrix_id, self._next_id = self._next_id, self._next_id + 1
        return matrix_id

    def create(self, spec: MatrixSpec) -> MatrixHandle:
        """Make room for a matrix that will be written later; return a handle for it."""
        handle = self._handle(
            self._next(), spec
        )  # made first, so that an interrupt cannot leave a matrix without an owner
        self._plane.create(handle.matrix_id, spec)
        return handle

    def send(self, spec: MatrixSpec, array: Array, meter: Meter) -> tuple[MatrixHandle, list[TransferTimes]]:
        """Send a matrix; return a handle for it, and the seconds that each worker's part took."""
        handle = self._handle(self._next(), spec)
        return handle, self._plane.send(handle.matrix_id, spec, array, meter)

    def send_sparse(self, matrix: Any, meter: Meter) -> tuple[MatrixHandle, list[TransferTimes]]:
        """Send a sparse matrix of SciPy; return a handle for it, and the seconds that each worker's part took."""
        spec, arrays = sparse_arrays(matrix, self.address.size)
        handle = self._handle(self._next(), spec)
        return handle, send_sparse(self._plane, handle.matrix_id, spec, arrays, meter)

    def fetch(self, handle: MatrixHandle, out: Array | None, meter: Meter) -> tuple[Array, list[TransferTimes]]:
        """Fetch a matrix of this group; return it, and the seconds that each worker's part took."""
        self.to_reference(handle)
        return handle.fetch(out, meter)

    def check(self) -> None:
        """Ask every worker for a sign of life."""
        self._plane.free([])

    def shut_down(self, reason: str) -> None:
        """End all connections to the workers; another thread that waits for an answer gets an error."""
        self._commands.shut_down()
        self._plane.shut_down(reason)

    def close(self, ended: bool = False) -> None:
        """Close all connections to the workers.

        Parameters
        ----------
        ended : bool
            Whether the session has given the workers back; handles of their matrices say so from then on.
        """
        self._commands.close()
        forget_plane(self.address, ended)


def _with_handles(value: Any, handles: dict[int, MatrixHandle]) -> Any:
    """Return a task's result with handles instead of references."""
    match value:
        case MatrixReference():
            return handles[value.matrix_id]
        case list():
            return [_with_handles(member, handles) for member in value]
        case dict():
            return {name: _with_handles(member, handles) for name, member in value.items()}
    return value
