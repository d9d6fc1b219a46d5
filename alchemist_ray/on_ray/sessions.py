"""The session actors of a Ray job: named by the caller, or made on first use and shared by the job."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from alchemist_ray.calls.placing import Placer
from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.workers import server_in_environment
from alchemist_ray.errors import ArgumentValueError, GroupDiedError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.on_ray.actor import SessionActor
from alchemist_ray.on_ray.cluster_options import DEFAULT_TIMEOUT, ClusterOptions, check_count, check_name
from alchemist_ray.on_ray.clusters import (
    NAMESPACE,
    Cluster,
    await_name_free,
    end_cluster,
    find_cluster,
    job_cluster_name,
    no_such_cluster,
    start_cluster,
)
from alchemist_ray.on_ray.shortage import fitting, ray_nodes
from alchemist_ray.protocol.descriptions import LibraryDescription
from alchemist_ray.transport.credentials import find_token

SessionLike = Any
"""A SessionActor handle, or the name of one."""


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

    @functools.cached_property
    def is_on_many_nodes(self) -> bool:
        """Whether the Ray cluster has more than one node; Ray is asked once."""
        return has_many_nodes()

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
    shares_files: bool = False


_defaults = _Defaults()
_sessions: dict[tuple[str, Any], RemoteSession] = {}
_clusters: list[str] = []
"""Names of the clusters that this process has started, and that end with :func:`shutdown`."""
_lock = threading.Lock()


def _start_afresh() -> None:
    """Forget the parent's sessions, in a forked child: two processes must not number matrices alike."""
    global _sessions, _clusters, _lock
    _sessions, _clusters, _lock = {}, [], threading.Lock()


os.register_at_fork(after_in_child=_start_afresh)


def init(
    num_workers: int | None = None,
    hostname: str | None = None,
    port: int | None = None,
    token: str | None = None,
    *,
    workers_per_node: int | None = None,
    placement_strategy: str | None = None,
    resources_per_worker: Mapping[str, float] | None = None,
    label_selector: Mapping[str, str] | None = None,
    timeout: float | None = None,
    cluster_name: str | None = None,
    cluster_workers: int | None = None,
    libraries: Mapping[str, str] | None = None,
    memory_per_worker: int | None = None,
    detached: bool = False,
) -> Any:
    """Set how the default session is made, and make it.

    Without a server's address, also in the environment variable ``ALCHEMIST_SERVER`` of this process, workers run on
    this machine if Ray has one node. If Ray has several nodes, or one of the arguments about Ray is given, they run on
    Ray's nodes, and take resources of Ray.

    Parameters
    ----------
    num_workers : int, optional
        Size of its worker group; by default all workers of the cluster, or the number of cores.
    hostname, port, token : optional
        The server to connect to; by default the one that ``ALCHEMIST_SERVER`` names, as ``HOST:PORT``. Without the
        variable, or with an argument about Ray, one is started, which ends with the Ray job.
    workers_per_node : int, optional
        Workers that are reserved together on one node of Ray; by default each is placed for itself.
    placement_strategy : {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"}, optional
        How Ray places them; by default "PACK".
    resources_per_worker : mapping, optional
        Ray resources that each worker takes; by default one CPU.
    label_selector : mapping, optional
        Labels that the nodes must have.
    timeout : float, optional
        Seconds to wait until Ray has the resources; by default 120.
    cluster_name : str, optional
        Name of the cluster of workers. If there is one of that name, perhaps of another Ray job, it is used as it is.
        If there is none, it is started, provided that another argument but `timeout` says how: `num_workers` or
        `detached` is enough.
    cluster_workers : int, optional
        Workers of a cluster that is started; by default `num_workers`, or as many as the resources of Ray allow. Those
        that the default session does not take are for others: sessions of this job with another `num_workers`, or,
        if the cluster has a name, environments and other jobs.
    libraries : mapping, optional
        Name -> Python module or path of libraries that a cluster which is started offers beside the installed ones.
    memory_per_worker : int, optional
        Bytes that each of its workers has for matrices; by default an equal share of 80 % of the memory of its node,
        as if the node were full of such workers.
    detached : bool
        Whether the cluster of workers outlives the Ray job, until :func:`stop_cluster`; it needs a `cluster_name`.

    Returns
    -------
    ActorHandle
        The session's actor.

    Raises
    ------
    ServerUnreachableError, AuthenticationError, NotEnoughWorkersError
        If the server is not there, the token is wrong, or the server has too few free workers.
    ClusterError
        If Ray does not give the resources in time; the error says what Ray has. Or if there is no cluster of that name,
        and nothing says how to start one; the error names those that there are.
    ArgumentError, ArgumentValueError
        If an argument is of the wrong type or out of range.
    """
    global _defaults
    shutdown()
    about_ray = {
        "workers_per_node": workers_per_node,
        "placement_strategy": placement_strategy,
        "resources_per_worker": resources_per_worker,
        "label_selector": label_selector,
        "timeout": timeout,
        "libraries": libraries,
        "memory_per_worker": memory_per_worker,
        "cluster_workers": cluster_workers,
        "cluster_name": cluster_name,
    }
    given: dict[str, Any] = {name: _plain(value) for name, value in about_ray.items() if value is not None}
    num_workers = _plain(num_workers)
    _check(num_workers, given, detached)
    if not ray.is_initialized():
        ray.init()
    try:
        if not given:
            hostname, port, token = _server(hostname, port, token)
        if hostname is not None or port is not None:
            if given:
                raise ArgumentValueError("init", f"{', '.join(given)} is for workers on Ray's nodes, and a server was "
                                         "named: give one or the other")  # fmt: skip
            _defaults = _Defaults(num_workers, hostname, port, token)
        elif given or has_many_nodes():
            cluster = _join_cluster(num_workers, given, detached)
            where = cluster.address
            size = num_workers or cluster.num_workers
            _defaults = _Defaults(size, where.hostname, where.port, where.token, shares_files=True)
        else:
            _defaults = _Defaults(num_workers)
        session = default_session(None)
        session.attach()
    except Exception:
        shutdown()
        raise
    return session.actor


def _server(hostname: str | None, port: int | None, token: str | None) -> tuple[str | None, int | None, str | None]:
    """Return the named server; without a name, the one that ``ALCHEMIST_SERVER`` names to this process.

    It is looked up here, with its token, since an actor on another node may have neither the variable nor the token.
    """
    named = server_in_environment() if hostname is None and port is None else None
    return (hostname, port, token) if named is None else (*named, token or find_token(named[1]))


def has_many_nodes() -> bool:
    """Whether the Ray cluster has more than one node now."""
    return len([node for node in ray.nodes() if node["Alive"]]) > 1


def _plain(value: Any) -> Any:
    """Return an integer of NumPy's as one of Python's, which Ray and JSON take."""
    return int(value) if isinstance(value, np.integer) else value


def _check(num_workers: int | None, given: Mapping[str, Any], detached: bool) -> None:
    """Check arguments of :func:`init`, before Ray is started for them."""
    if num_workers is not None:
        check_count("num_workers", num_workers)
    if "cluster_name" in given:
        check_name(given["cluster_name"])
    elif detached:
        raise ArgumentValueError("init", "a detached cluster needs a cluster_name, by which later jobs find it")
    workers = given.get("cluster_workers")
    if workers is not None:
        check_count("cluster_workers", workers)
        if workers < (num_workers or 1):
            raise ArgumentValueError(
                "init", f"cluster_workers is {workers}, but it must be at least num_workers, which is {num_workers}"
            )
    _options_of(workers or num_workers or 1, given)


def _options_of(count: int, given: Mapping[str, Any]) -> ClusterOptions:
    """Return the options of a cluster with so many workers."""
    names = {"cluster_name", "cluster_workers"}
    return ClusterOptions(count, **{name: value for name, value in given.items() if name not in names})


def _join_cluster(num_workers: int | None, given: Mapping[str, Any], detached: bool) -> Cluster:
    """Return the named cluster; if there is none, start it for this job."""
    name = given.get("cluster_name")
    if name is not None:
        found = find_cluster(name, given.get("timeout", DEFAULT_TIMEOUT))
        if found is not None:
            return found
        if num_workers is None and not detached and given.keys() <= {"cluster_name", "timeout"}:
            raise no_such_cluster(name)
    key = name or job_cluster_name()
    count = given.get("cluster_workers") or num_workers or _as_many_as_fit(_options_of(1, given))
    cluster = start_cluster(_options_of(count, given), key, detached)
    if not detached:
        _clusters.append(key)
    return cluster


def _as_many_as_fit(options: ClusterOptions) -> int:
    """Return how many workers the nodes of Ray have room for, at least one."""
    usable = [node.total for node in ray_nodes() if node.has(options.label_selector)]
    return max(1, sum(fitting(options.needs(), total) for total in usable))


def shutdown() -> None:
    """End the sessions that were made on first use, and the workers that :func:`init` has started on Ray's nodes.

    The next call makes a new session.
    """
    global _defaults
    with _lock:
        sessions = list(_sessions.items())
        _sessions.clear()
        clusters = _clusters.copy()
        _clusters.clear()
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
            await_name_free(what.actor_name)
    for name in clusters:
        end_cluster(name)


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
    global _defaults
    if not ray.is_initialized():
        ray.init()
    count = num_workers if num_workers is not None else _defaults.num_workers
    with _lock:
        known = _defaults
        _defaults = _Defaults(known.num_workers, *_server(known.hostname, known.port, known.token), known.shares_files)
        what = _OnFirstUse(num_workers)
        key = _process_key(), what
        actor = SessionActor.options(name=what.actor_name, namespace=NAMESPACE, get_if_exists=True).remote(
            count,
            _defaults.hostname,
            _defaults.port,
            _defaults.token,
            show_progress=sys.stderr.isatty(),
            shares_files=_defaults.shares_files,
        )
        if key not in _sessions or _sessions[key].actor._actor_id != actor._actor_id:
            _sessions[key] = RemoteSession(actor)  # the first one, or the known one has died
        return _sessions[key]


def named_session(session: SessionLike) -> RemoteSession:
    """Return the session of an actor, which may be given by its name."""
    if not ray.is_initialized():
        ray.init()
    actor = ray.get_actor(session) if isinstance(session, str) else session
    with _lock:
        return _sessions.setdefault((_process_key(), actor._actor_id), RemoteSession(actor))


def find_session(session: SessionLike | None, num_workers: int | None, handles: list[MatrixHandle]) -> RemoteSession:
    """Return the named session, the session of that size, the session of the handles, or the default session."""
    if session is not None:
        return named_session(session)
    if num_workers is not None:
        return default_session(num_workers)
    with _lock:
        known = list(_sessions.values())
    for candidate in known:
        address = candidate.address
        if address and any(handle.address.ticket == address.ticket for handle in handles):
            return candidate
    return default_session(None)
