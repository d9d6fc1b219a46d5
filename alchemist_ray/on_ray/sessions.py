"""The session actors of a Ray job: named by the caller, or made on first use and shared by the job."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import ray

from alchemist_ray.calls.placing import Placer
from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.errors import GroupDiedError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.on_ray.actor import SessionActor
from alchemist_ray.protocol.descriptions import LibraryDescription

SessionLike = Any
"""A SessionActor handle, or the name of one."""

NAMESPACE = "alchemist"
"""Ray namespace of the sessions that are made on first use."""


class RemoteSession:
    """A session actor, seen from one process that submits calls to it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self._lock = threading.Lock()
        self._placer: Placer | None = None
        self._libraries: dict[str, LibraryDescription] = {}

    def describe(self, library: str) -> LibraryDescription:
        """Return the description of a library of the session; the actor is asked once."""
        if library not in self._libraries:
            self._libraries[library] = ray.get(self.actor.describe.remote(library))
        return self._libraries[library]

    @property
    def address(self) -> GroupAddress | None:
        """Where the session's workers are, as far as this process knows."""
        return None if self._placer is None else self._placer.address

    def attach(self, instead_of: GroupAddress | None = None) -> Placer:
        """Return the writer to the session's workers.

        Parameters
        ----------
        instead_of : GroupAddress, optional
            Workers that this process has found dead; the actor then checks them.
        """
        with self._lock:
            if self._placer is None or self._placer.address == instead_of:
                self._placer = Placer(ray.get(self.actor.attach.remote(instead_of)))
            return self._placer

    def place(self, matrix: Any, layout: str | Layout) -> MatrixHandle:
        """Write an array, or a sparse matrix of SciPy's, to the session's workers; return a handle that owns it.

        If the workers that this process knows are gone, it asks once for the session's new ones.
        """
        placer = self.attach()
        try:
            return placer.place(matrix, layout)
        except GroupDiedError:
            return self.attach(instead_of=placer.address).place(matrix, layout)


@dataclass(frozen=True)
class _Defaults:
    """The settings of :func:`init` for sessions that are made on first use."""

    num_workers: int | None = None
    hostname: str | None = None
    port: int | None = None
    token: str | None = None


_defaults = _Defaults()
_sessions: dict[tuple[str, Any], RemoteSession] = {}
_lock = threading.Lock()


def _start_afresh() -> None:
    """Forget the parent's sessions, in a forked child: two processes must not number matrices alike."""
    global _sessions, _lock
    _sessions, _lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_start_afresh)


def init(
    num_workers: int | None = None, hostname: str | None = None, port: int | None = None, token: str | None = None
) -> Any:
    """Set how the default session is made, and make it.

    Parameters
    ----------
    num_workers : int, optional
        Size of its worker group; by default the number of cores.
    hostname, port, token : optional
        The server to connect to; by default one is started on this machine and ends with the Ray job.

    Returns
    -------
    ActorHandle
        The session's actor.

    Raises
    ------
    ServerUnreachableError, AuthenticationError, NotEnoughWorkersError
        If the server is not there, the token is wrong, or the server has too few free workers.
    """
    global _defaults
    shutdown()
    _defaults = _Defaults(num_workers, hostname, port, token)
    try:
        session = default_session(None)
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
            ):  # it is gone already, or busy; it is killed in any case
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
    """Return a key for the connection of this process to its Ray cluster."""
    return str(ray.get_runtime_context().get_worker_id())


def default_session(num_workers: int | None) -> RemoteSession:
    """Return the session of this process with this many workers; it is made on first use."""
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
            _sessions[key] = RemoteSession(actor)  # the first one, or the known one has died
        return _sessions[key]


def _named_session(session: SessionLike) -> RemoteSession:
    if not ray.is_initialized():
        ray.init()
    actor = ray.get_actor(session) if isinstance(session, str) else session
    with _lock:
        return _sessions.setdefault((_process_key(), actor._actor_id), RemoteSession(actor))


def find_session(session: SessionLike | None, num_workers: int | None, handles: list[MatrixHandle]) -> RemoteSession:
    """Return the named session, the session of that size, the session of the handles, or the default session."""
    if session is not None:
        return _named_session(session)
    if num_workers is not None:
        return default_session(num_workers)
    with _lock:
        known = list(_sessions.values())
    for candidate in known:
        address = candidate.address
        if address and any(handle.address.ticket == address.ticket for handle in handles):
            return candidate
    return default_session(None)
