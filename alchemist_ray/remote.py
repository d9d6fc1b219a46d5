"""Linear algebra as Ray remote functions: ``ray.get(alchemist.svd.remote(A, k))``.

A call finds its session (an actor), sees to it that the matrices are with that session's workers, and submits the task
to the actor. A large array is written by the caller straight to the workers: Ray's object store, which would copy it
at a tenth of the speed, never sees it. An ``ObjectRef`` is passed on as it is, and read by the actor.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from alchemist_ray.actor import Attachment, Placed, SessionActor
from alchemist_ray.address import GroupAddress
from alchemist_ray.errors import ArgumentValueError, GroupDiedError
from alchemist_ray.layout import Layout
from alchemist_ray.matrix import MatrixHandle
from alchemist_ray.meter import Meter
from alchemist_ray.routines import ROUTINES, Routine, as_operand
from alchemist_ray.sparse import SparseMatrixHandle, is_sparse, send_sparse, sparse_arrays
from alchemist_ray.spec import spec_of
from alchemist_ray.transfer import plane_of

Array = npt.NDArray[Any]
SessionLike = Any
"""A SessionActor handle, or the name of one."""

NAMESPACE = "alchemist"
"""Ray namespace of the sessions that are made on first use."""

BY_VALUE_BYTES = 100 * 1024
"""Arrays up to this size go to the actor by value: Ray sends them inside the call."""


class RemoteSession:
    """A session actor, as one process that submits to it sees it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self._lock = threading.Lock()
        self._attachment: Attachment | None = None
        self._ids = itertools.count()

    def attach(self, instead_of: GroupAddress | None = None) -> Attachment:
        """Return where the session's workers are; the caller may know that some that were there are gone."""
        with self._lock:
            stale = self._attachment is not None and self._attachment.address == instead_of
            if self._attachment is None or stale:
                self._attachment = ray.get(self.actor.attach.remote(instead_of))
                self._ids = itertools.count(self._attachment.first_id)
            return self._attachment

    def place(self, matrix: Any, layout: str | Layout) -> MatrixHandle:
        """Write an array, or a sparse matrix of SciPy's, to the session's workers; return a handle that owns it.

        If the workers that this process knows of are gone, the session's new ones are asked for once.
        """
        address = self.attach().address
        try:
            return self._place(matrix, layout, address)
        except GroupDiedError:
            return self._place(matrix, layout, self.attach(instead_of=address).address)

    def _place(self, matrix: Any, layout: str | Layout, address: GroupAddress) -> MatrixHandle:
        plane, matrix_id = plane_of(address), next(self._ids)
        if is_sparse(matrix):
            sparse_spec, arrays = sparse_arrays(matrix, address.size)
            send_sparse(plane, matrix_id, sparse_spec, arrays, Meter())
            return SparseMatrixHandle(matrix_id, sparse_spec, address, owned=True)
        spec = spec_of(matrix, layout, address.size)
        plane.send(matrix_id, spec, matrix)
        return MatrixHandle(matrix_id, spec, address, owned=True)


@dataclass(frozen=True)
class _Defaults:
    """What :func:`init` has set for sessions that are made on first use."""

    num_workers: int | None = None
    hostname: str | None = None
    port: int | None = None
    token: str | None = None


_defaults = _Defaults()
_sessions: dict[tuple[str, Any], RemoteSession] = {}
_lock = threading.Lock()


def init(
    num_workers: int | None = None, hostname: str | None = None, port: int | None = None, token: str | None = None
) -> Any:
    """Say how the default session is made, and make it.

    Parameters
    ----------
    num_workers : int, optional
        Size of its worker group; by default as many as there are cores.
    hostname, port, token : optional
        The server to connect to; by default one is started on this machine and ends with the Ray job.

    Returns
    -------
    ActorHandle
        The session's actor.

    Raises
    ------
    ServerUnreachableError, AuthenticationError, NotEnoughWorkersError
        If there is no such server, the token is wrong, or the server has too few free workers.
    """
    global _defaults
    shutdown()
    _defaults = _Defaults(num_workers, hostname, port, token)
    try:
        session = _default_session(None)
        session.attach()
    except Exception:
        shutdown()
        raise
    return session.actor


def shutdown() -> None:
    """End the sessions that were made on first use; the next call makes a new one."""
    global _defaults
    with _lock:
        sessions = list(_sessions.items())
        _sessions.clear()
        _defaults = _Defaults()
    if not ray.is_initialized():
        return
    here = _process_key()
    for (process, what), session in sessions:
        if process == here and isinstance(what, _OnFirstUse):
            with contextlib.suppress(
                ray.exceptions.RayError, TimeoutError
            ):  # gone already, or busy: killed all the same
                ray.get(session.actor.stop.remote(), timeout=10)
            ray.kill(session.actor)
            _await_name_free(what.actor_name)


def _await_name_free(name: str) -> None:
    """Wait until a killed actor has given back its name."""
    deadline = time.monotonic() + 10
    with contextlib.suppress(ValueError):
        while time.monotonic() < deadline:
            ray.get_actor(name, namespace=NAMESPACE)
            time.sleep(0.02)


@dataclass(frozen=True)
class _OnFirstUse:
    """Key of a session that is made on first use, and shared by the processes of a Ray job."""

    num_workers: int | None

    @property
    def actor_name(self) -> str:
        """Name of its actor in :data:`NAMESPACE`."""
        size = "default" if self.num_workers is None else str(self.num_workers)
        return f"session-{ray.get_runtime_context().get_job_id()}-{size}"


def _process_key() -> str:
    """Return what tells this process's connection to its Ray cluster from any other."""
    return str(ray.get_runtime_context().get_worker_id())


def _default_session(num_workers: int | None) -> RemoteSession:
    """Return the session of this process with so many workers, making it on first use."""
    if not ray.is_initialized():
        ray.init()
    count = num_workers if num_workers is not None else _defaults.num_workers
    with _lock:
        what = _OnFirstUse(num_workers)
        key = _process_key(), what
        actor = SessionActor.options(name=what.actor_name, namespace=NAMESPACE, get_if_exists=True).remote(
            count, _defaults.hostname, _defaults.port, _defaults.token, show_progress=sys.stderr.isatty()
        )
        if key not in _sessions or _sessions[key].actor._actor_id != actor._actor_id:
            _sessions[key] = RemoteSession(actor)  # the first, or the one that we knew has died
        return _sessions[key]


def _named_session(session: SessionLike) -> RemoteSession:
    if not ray.is_initialized():
        ray.init()
    actor = ray.get_actor(session) if isinstance(session, str) else session
    with _lock:
        return _sessions.setdefault((_process_key(), actor._actor_id), RemoteSession(actor))


def _find_session(session: SessionLike | None, num_workers: int | None, handles: list[MatrixHandle]) -> RemoteSession:
    """Return the session named, or the one of that size, or the one the handles belong to, or the default one."""
    if session is not None:
        return _named_session(session)
    if num_workers is not None:
        return _default_session(num_workers)
    with _lock:
        known = list(_sessions.values())
    for candidate in known:
        attachment = candidate._attachment
        if attachment and any(handle.address.ticket == attachment.address.ticket for handle in handles):
            return candidate
    return _default_session(None)


def put(A: npt.ArrayLike, layout: str | Layout = "MC_MR", session: SessionLike | None = None) -> MatrixHandle:
    """Write a matrix to the workers of a session, to use it more than once.

    Parameters
    ----------
    A : array_like, shape (m, n)
        The matrix; or a sparse one of SciPy's.
    layout : str or Layout
        How it is to be distributed; a sparse matrix is always dealt by rows.
    session : ActorHandle or str, optional
        The session; by default this process's own.

    Returns
    -------
    MatrixHandle
        Lives until it is freed or garbage collected.
    """
    found = _find_session(session, None, [])
    return found.place(as_operand_or_pass("A", A, convert=True), layout)


class RemoteRoutine:
    """A routine of linear algebra as a Ray remote function.

    Call it as ``routine.remote(...)``; ``routine.options(session=..., num_workers=...).remote(...)`` says where.
    """

    def __init__(self, routine: Routine, session: SessionLike | None = None, num_workers: int | None = None) -> None:
        self._routine = routine
        self._session = session
        self._num_workers = num_workers
        self.__name__ = routine.name
        self.__doc__ = routine.doc

    def options(self, *, session: SessionLike | None = None, num_workers: int | None = None) -> RemoteRoutine:
        """Return the same function with other surroundings.

        Parameters
        ----------
        session : ActorHandle or str, optional
            The :class:`SessionActor` to run in, or its name.
        num_workers : int, optional
            Run in this process's session with so many workers, made on first use.
        """
        if session is not None and num_workers is not None:
            raise ArgumentValueError("options", "give a session or a number of workers, not both")
        if num_workers is not None and num_workers < 1:
            raise ArgumentValueError("options", f"num_workers must be at least 1, not {num_workers}")
        return RemoteRoutine(self._routine, session, num_workers)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit the routine; return an ``ObjectRef`` to its result."""
        routine = self._routine
        arguments = routine.bind(args, kwargs)
        handles = [value for value in arguments.values() if isinstance(value, MatrixHandle)]
        arguments = {
            name: as_operand_or_pass(name, value) if name in routine.layouts else value
            for name, value in arguments.items()
        }
        session = _find_session(self._session, self._num_workers, handles)
        placed: list[MatrixHandle] = []  # ours until the actor has them
        try:
            values = [self._pass(session, name, value, placed) for name, value in arguments.items()]
            result = session.actor.run_routine.remote(routine.name, list(arguments), *values)
        except BaseException:
            for handle in placed:
                handle.free()
            raise
        for handle in placed:
            handle.disown()
        return result

    def _pass(self, session: RemoteSession, name: str, value: Any, placed: list[MatrixHandle]) -> Any:
        """Return what the actor is given for an argument; what is large is written to the workers here and now."""
        large = is_sparse(value) or (isinstance(value, np.ndarray) and value.nbytes > BY_VALUE_BYTES)
        if not large or name not in self._routine.layouts:
            return value
        operand = as_operand_or_pass(name, value, convert=True)
        handle = session.place(operand, self._routine.layouts[name]((operand.shape[0], operand.shape[1])))
        placed.append(handle)
        return Placed(handle.matrix_id, handle.spec, handle.address.ticket, vector=value.ndim == 1)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a remote function is not called directly."""
        name = self._routine.name
        raise TypeError(f"{name} is a remote function: call it as alchemist.{name}.remote(...)")

    def __repr__(self) -> str:
        return f"<remote function alchemist.{self._routine.name}({', '.join(self._routine.parameters)})>"


def as_operand_or_pass(name: str, value: Any, convert: bool = False) -> Any:
    """Return an array for anything but references, handles and sparse matrices, having checked that it is a matrix.

    With `convert` its elements are made what the routines compute with; else that is left to the other side.
    """
    if isinstance(value, (ray.ObjectRef, MatrixHandle)) or is_sparse(value):
        return value
    array = np.asarray(value)
    operand = as_operand(name, array)
    return operand if convert else array


svd = RemoteRoutine(ROUTINES["svd"])
matmul = RemoteRoutine(ROUTINES["matmul"])
qr = RemoteRoutine(ROUTINES["qr"])
solve = RemoteRoutine(ROUTINES["solve"])
