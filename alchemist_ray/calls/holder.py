"""A session that is held for callers in other processes: it gets workers when needed and runs calls with arrays.

Nothing here depends on a framework; :mod:`alchemist_ray.on_ray.actor` puts a holder into a Ray actor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alchemist_ray.calls.placing import ATTACHMENT_BITS, Attachment, Placed
from alchemist_ray.calls.routine import Operands
from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.libraries import Library
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.server_files import resolve_paths
from alchemist_ray.client.matrices.sparse import SparseMatrixHandle, is_sparse
from alchemist_ray.client.session import AlchemistSession
from alchemist_ray.errors import ArgumentValueError, GroupDiedError
from alchemist_ray.host.cores import allowed_cores
from alchemist_ray.layouts.spec import SparseSpec, is_array_like
from alchemist_ray.protocol.descriptions import LibraryDescription


@dataclass(frozen=True)
class TaskCall:
    """A call of a task whose matrices may be arrays, without the values of its arguments.

    Attributes
    ----------
    library, task : str
        The task.
    parameters : tuple of str
        The given parameters, in the order of their values.
    operands : Operands
        How the matrices among them are sent.
    smaller_side : str
        A parameter whose None means the smaller side of the matrix `A`; empty: none.
    timeout : float or None
        Seconds that the task may take.
    directory : str
        The caller's working directory, where relative paths begin if the holder has started the server itself.
    """

    library: str
    task: str
    parameters: tuple[str, ...]
    operands: Operands
    smaller_side: str = ""
    timeout: float | None = None
    directory: str = ""


class SessionHolder:
    """An :class:`~alchemist_ray.client.session.AlchemistSession` that is held for callers in other processes.

    It connects, and gets its workers, with the first call; when its workers die, the next call gets new ones.

    Parameters
    ----------
    num_workers : int, optional
        Size of the worker group; by default the number of cores of this machine.
    hostname, port, token : optional
        The server, as for :meth:`AlchemistSession.connect`; by default the holder starts one in its own process.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        hostname: str | None = None,
        port: int | None = None,
        token: str | None = None,
    ) -> None:
        self._num_workers = num_workers if num_workers is not None else allowed_cores()
        self._server = hostname, port, token
        self._session = AlchemistSession(verbose=False)
        self._attachments = 0
        self._libraries: dict[str, Library] = {}
        self._kept: dict[int, MatrixHandle] = {}

    def attach(self, instead_of: GroupAddress | None = None) -> Attachment:
        """Return where the workers are, and the first number for matrices that the caller writes itself.

        Parameters
        ----------
        instead_of : GroupAddress, optional
            Workers that the caller has found dead. The session checks them, and gets new ones if they are dead.
        """
        session = self._ready()
        if instead_of is not None and instead_of == session.address:
            with contextlib.suppress(GroupDiedError):
                session.check_workers()
            self._ready()
        self._attachments += 1
        return Attachment(self._session.address, self._attachments << ATTACHMENT_BITS)

    def _ready(self) -> AlchemistSession:
        """Return the session, connected and with workers."""
        if not self._session.connected:
            self._session.connect(*self._server)
        if not self._session.has_workers():
            self._kept.clear()
            self._libraries.clear()
            self._session.request_workers(self._num_workers)
        return self._session

    def describe(self, library: str) -> LibraryDescription:
        """Return the description of a library; it is loaded first if necessary."""
        self._ready()
        return self._library(library).description

    def _library(self, name: str) -> Library:
        if name not in self._libraries:
            self._libraries[name] = self._session.load_library(name)
        return self._libraries[name]

    def run_routine(self, call: TaskCall, *values: Any) -> Any:
        """Run a task whose matrices may be arrays.

        Parameters
        ----------
        call : TaskCall
            The call.
        *values
            The values of its parameters. Matrices are arrays, sparse matrices of SciPy's, handles, or placed already.

        Returns
        -------
        Any
            Arrays, or handles if a matrix was given as a handle.
        """
        session = self._ready()
        given = dict(zip(call.parameters, values, strict=True))
        vector = any(_is_vector(given[p]) for p in call.operands.layouts if p in given)
        handles_out = any(isinstance(value, MatrixHandle) for value in given.values())
        operands = self._operands(call, given)
        try:
            arguments = {**given, **operands}
            if call.smaller_side and arguments.get(call.smaller_side) is None:
                arguments[call.smaller_side] = min(arguments["A"].shape)
            library = self._library(call.library)
            arguments = resolve_paths(session, library.task(call.task), arguments, call.directory)
            result = library.options(timeout=call.timeout)[call.task](**arguments)
        finally:
            # Freed now, not at garbage collection: the next call needs their memory.
            _free(operands[p] for p in operands if operands[p] is not given[p])
        if handles_out:
            return self._keep(result)
        return _map_matrices(result, lambda handle: _to_array(session, handle, vector))

    def _operands(self, call: TaskCall, given: dict[str, Any]) -> dict[str, MatrixHandle]:
        """Return handles for the matrices of a call; if the workers prove dead, get new workers and try again."""
        # The placed matrices first: from here on they must be freed here, also if another operand is refused.
        matrices = {p: given[p] for p in call.operands.layouts if p in given and _is_matrix(given[p])}
        ours = {p: self._own(value) for p, value in matrices.items() if isinstance(value, Placed)}
        try:
            return {p: ours[p] if p in ours else self._operand(call, p, value) for p, value in matrices.items()}
        except GroupDiedError:
            if ours or any(isinstance(value, MatrixHandle) for value in matrices.values()):
                raise  # matrices on the dead workers cannot be sent again from here
            self._ready()
            return {p: self._operand(call, p, value) for p, value in matrices.items()}

    def _own(self, placed: Placed) -> MatrixHandle:
        """Return an owning handle for a matrix that the caller has placed."""
        address = self._session.address
        if placed.ticket != address.ticket:
            raise GroupDiedError(self._session.session_id, "they were replaced after the matrix was sent")
        kind = SparseMatrixHandle if isinstance(placed.spec, SparseSpec) else MatrixHandle
        return kind(placed.matrix_id, placed.spec, address, owned=True)

    def _operand(self, call: TaskCall, parameter: str, value: Any) -> MatrixHandle:
        """Return a handle for a matrix; an array is sent to the workers."""
        if isinstance(value, MatrixHandle):
            return value
        if is_sparse(value):
            return self._session.send_matrix(value)
        array = call.operands.convert(parameter, value)
        return self._session.send_matrix(array, layout=call.operands.layout(parameter, array.shape))

    def run_task(self, library: str, task: str, arguments: dict[str, Any], timeout: float | None = None) -> Any:
        """Run a task of any library; see :meth:`AlchemistSession.run_task`. Matrices come back as handles.

        Parameters
        ----------
        library, task : str
            The task.
        arguments : dict
            Its arguments by name; matrices as handles.
        timeout : float, optional
            Seconds that it may take.
        """
        self._ready()
        return self._keep(self._library(library).options(timeout=timeout)[task](**arguments))

    def _keep(self, result: Any) -> Any:
        """Keep the matrices of a result alive until they are freed by name: callers hold copies of their handles."""

        def keep(handle: MatrixHandle) -> MatrixHandle:
            self._kept[handle.matrix_id] = handle
            return handle

        return _map_matrices(result, keep)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call any method of the session: ``call("list_all_workers")``."""
        if method.startswith("_"):
            raise ArgumentValueError("call", f"{method!r} is not a public method of AlchemistSession")
        return self._keep(getattr(self._ready(), method)(*args, **kwargs))

    def stop(self) -> None:
        """End the session."""
        self._kept.clear()
        self._session.stop()


def _free(handles: Iterable[MatrixHandle]) -> None:
    """Free matrices; dead workers are not an error."""
    for handle in handles:
        with contextlib.suppress(GroupDiedError):
            handle.free()


def _is_matrix(value: Any) -> bool:
    """Whether the value of a matrix parameter is a matrix; some of these parameters also take numbers or None."""
    return isinstance(value, (MatrixHandle, Placed)) or is_array_like(value) or is_sparse(value)


def _is_vector(value: Any) -> bool:
    if isinstance(value, Placed):
        return value.vector
    return is_array_like(value) and np.ndim(value) == 1


def _to_array(session: AlchemistSession, handle: MatrixHandle, vector: bool) -> Any:
    """Fetch a matrix and free it; return a single column as a vector if the caller gave vectors."""
    array = session.fetch_matrix(handle)
    _free([handle])
    return array[:, 0] if vector and isinstance(array, np.ndarray) and array.shape[1] == 1 else array


def _map_matrices(value: Any, convert: Callable[[MatrixHandle], Any]) -> Any:
    """Return `value` with every matrix handle in it converted."""
    match value:
        case MatrixHandle():
            return convert(value)
        case tuple():
            return tuple(_map_matrices(member, convert) for member in value)
        case list():
            return [_map_matrices(member, convert) for member in value]
        case dict():
            return {name: _map_matrices(member, convert) for name, member in value.items()}
    return value
