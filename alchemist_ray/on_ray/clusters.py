"""A server whose workers are on the nodes of a Ray cluster, and count as Ray's resources.

A placement group reserves the resources of the workers (:mod:`.reservation`). On each node that holds bundles of it,
one actor runs a node agent with the slots of these bundles together. Another actor runs the driver. So Ray decides
which nodes run MPI ranks, and its autoscaler sees what is asked. Everything ends with the process that has started the
cluster, at the latest with the Ray job (or stays, if the cluster is detached).
"""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from alchemist_ray.client.local_server import absolute_source, owners_rights, start_server
from alchemist_ray.errors import ClusterError
from alchemist_ray.host.child_program import ChildProgram
from alchemist_ray.on_ray.cluster_options import ClusterOptions
from alchemist_ray.on_ray.reservation import WATCH, ReservationActor, await_resources
from alchemist_ray.on_ray.shortage import fitting
from alchemist_ray.protocol.handshake import new_token
from alchemist_ray.protocol.node_settings import NodeSettings
from alchemist_ray.protocol.server_options import FORK, ServerArguments

NAMESPACE = "alchemist"
"""Ray namespace of our actors."""
START_SECONDS = 60.0
"""Seconds for the actors to start, once the resources are there."""

_servers: dict[str, Any] = {}
"""The actors of the servers that this process has started: Ray ends an actor when no handle is left."""

_AGENT = "alchemist_ray.mpi_backend.node.program"
_SERVER = "server-"
"""First part of the names of the servers' actors."""
_OURS = "."
"""First character of the names of clusters that have no name of a caller's."""


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is, and its token."""

    hostname: str
    port: int
    token: str = field(repr=False)


@dataclass(frozen=True)
class Cluster:
    """A cluster whose workers have all joined: where its server is, and how many they are."""

    address: ServerAddress
    num_workers: int


class ServerHolder:
    """Runs a driver without workers of its own, as a child process of a Ray actor.

    Its user owns the nodes as well. So it gives the same rights as a server that a process starts for itself.
    """

    def __init__(self, libraries: Mapping[str, str], memory_per_worker: int | None) -> None:
        options: ServerArguments = {
            **owners_rights(),
            "hostname": ray.util.get_node_ip_address(),
            "token": new_token(),
            "libraries": libraries,
            "memory_per_worker": memory_per_worker,
        }
        self._server = start_server(0, **options)
        self._agents: list[Any] = []
        self._group: PlacementGroup | None = None
        self._num_workers = 0

    def address(self) -> ServerAddress:
        """Return where the driver is."""
        return ServerAddress(self._server.hostname, self._server.port, self._server.token)

    def keep(self, agents: list[Any], group: PlacementGroup, num_workers: int) -> None:
        """Keep the actors of the nodes alive, and know what :func:`end_cluster` removes: all workers have joined."""
        self._agents, self._group, self._num_workers = agents, group, num_workers

    def kept(self) -> tuple[list[Any], PlacementGroup | None]:
        """Return what :meth:`keep` was given."""
        return self._agents, self._group

    def cluster(self) -> Cluster | None:
        """Return the cluster; None until all workers have joined."""
        return Cluster(self.address(), self._num_workers) if self._num_workers else None

    def stop(self) -> None:
        """End the driver, and with it all agents and ranks."""
        self._server.stop()

    def until_end(self) -> None:
        """Return never: who waits for this call, in the concurrency group `WATCH`, hears of the end of the actor."""
        threading.Event().wait()


class NodeHolder:
    """Runs a node agent, as a child process of a Ray actor."""

    def __init__(self, address: ServerAddress, slots: int, options: ClusterOptions) -> None:
        context = ray.get_runtime_context()
        self._agent = ChildProgram(_AGENT, str(os.getpid()), FORK, "", "")
        here = ray.util.get_node_ip_address()
        (node,) = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
        settings = NodeSettings(
            driver=(address.hostname, address.port),
            token=address.token,
            slots=slots,
            name=f"{here}-{context.get_actor_id()[:8]}",
            labels={**(node.get("Labels") or {}), **options.label_selector, "ray.io/node-id": node["NodeID"]},
            address=here,
            wait=START_SECONDS,
            shares=fitting(options.needs(), node["Resources"]),  # as if the node were full of such workers
        )
        facts = self._agent.tell(settings.to_json(), START_SECONDS)
        if facts is None or "error" in facts:
            reason = facts["error"] if facts else "its node agent did not start: see the log of the Ray worker"
            raise ClusterError(f"node {here}: {reason}")

    def joined(self) -> str:
        """Return the address of the node; the agent has joined the server."""
        return str(ray.util.get_node_ip_address())

    def stop(self) -> None:
        """End the agent and its ranks."""
        self._agent.stop(5.0)


ServerActor = ray.remote(num_cpus=0, concurrency_groups={WATCH: 1})(ServerHolder)
NodeActor = ray.remote(num_cpus=0)(NodeHolder)


def start_cluster(options: ClusterOptions, name: str, detached: bool = False) -> Cluster:
    """Start a server in the Ray cluster, with workers on its nodes; return where it is.

    Parameters
    ----------
    options : ClusterOptions
        How many workers, and where.
    name : str
        Name of the cluster, for :func:`find_cluster`.
    detached : bool
        Whether it outlives the Ray job, until :func:`stop_cluster`.

    Raises
    ------
    ClusterError
        If the resources are not there in time; the error says what is missing. Or if a node does not start, or another
        process is starting a cluster of that name.
    """
    lifetime = {"lifetime": "detached"} if detached else {}
    started: list[Any] = []
    group: PlacementGroup | None = None
    try:
        started.append(server := _start_server(options, name, lifetime))
        started.append(reservation := ReservationActor.options(
            lifetime="detached", scheduling_strategy=_here()
        ).remote(server, options, name))  # fmt: skip
        group = ray.get(reservation.group.remote(), timeout=START_SECONDS)
        await_resources(group, options)
        address = cast("ServerAddress", ray.get(server.address.remote(), timeout=START_SECONDS))
        agents = _start_agents(options, group, address, lifetime)
        started += agents
        ray.get([agent.joined.remote() for agent in agents], timeout=START_SECONDS)
        ray.get(server.keep.remote(agents, group, options.num_workers))
    except BaseException as failure:
        for actor in started:
            ray.kill(actor)
        if group is not None:
            remove_placement_group(group)
        if started:
            await_name_free(_actor_name(name))
        if isinstance(failure, ray.exceptions.RayError):
            raise ClusterError(f"its actors did not start: {_cause(failure)}") from failure
        raise
    _servers[name] = server
    return Cluster(address, options.num_workers)


def find_cluster(name: str, seconds: float = 0.0) -> Cluster | None:
    """Return a cluster; None if no cluster has that name, or its workers have not joined within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            server = ray.get_actor(_actor_name(name), namespace=NAMESPACE)
            found = cast("Cluster | None", ray.get(server.cluster.remote(), timeout=START_SECONDS))
        except (ValueError, ray.exceptions.RayError):
            return None
        if found is not None or time.monotonic() >= deadline:
            return found
        time.sleep(0.2)


def stop_cluster(name: str) -> None:
    """End a cluster that was started by ``init(cluster_name=...)``: its ranks, its agents and its server.

    Ray gets the resources back.

    Raises
    ------
    ClusterError
        If no cluster has that name; the error names the clusters that there are.
    """
    if not end_cluster(name):
        raise no_such_cluster(name)


def end_cluster(name: str) -> bool:
    """End a cluster; return False if no cluster has that name."""
    server = _servers.pop(name, None)
    try:
        server = server or ray.get_actor(_actor_name(name), namespace=NAMESPACE)
        agents, group = ray.get(server.kept.remote(), timeout=START_SECONDS)
    except (ValueError, ray.exceptions.RayError):
        return False
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get([agent.stop.remote() for agent in agents], timeout=10)
        ray.get(server.stop.remote(), timeout=10)
    for actor in (*agents, server):
        ray.kill(actor)
    if group is not None:
        remove_placement_group(group)
    await_name_free(_actor_name(name))
    return True


def cluster_names() -> list[str]:
    """Return the names of the clusters in Ray that a caller has named."""
    named = ray.util.list_named_actors(all_namespaces=True)
    servers = [actor["name"] for actor in named if actor["namespace"] == NAMESPACE]
    names = [name.removeprefix(_SERVER) for name in servers if name.startswith(_SERVER)]
    return sorted(name for name in names if not name.startswith(_OURS))


def no_such_cluster(name: str) -> ClusterError:
    """Return the error that no cluster has this name; it names the clusters that there are."""
    names = cluster_names()
    near = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    there = f"Its clusters are {', '.join(map(repr, names))}{hint}" if names else "It has no cluster with a name"
    return ClusterError(
        f"Ray has no cluster of workers called {name!r}. {there}. Start one with "
        f"alchemist.init(num_workers=..., cluster_name={name!r})"
    )


def new_cluster_name() -> str:
    """Return the name of a cluster that nobody else shall find."""
    return f"{_OURS}env-{secrets.token_hex(8)}"


def job_cluster_name() -> str:
    """Return the name of the cluster of this Ray job, if the caller has given it none."""
    return f"{_OURS}job-{ray.get_runtime_context().get_job_id()}"


def await_name_free(name: str) -> None:
    """Wait until a killed actor has given back its name."""
    deadline = time.monotonic() + 10
    with contextlib.suppress(ValueError):
        while time.monotonic() < deadline:
            ray.get_actor(name, namespace=NAMESPACE)
            time.sleep(0.02)


def _actor_name(name: str) -> str:
    return f"{_SERVER}{name}"


def _here() -> NodeAffinitySchedulingStrategy:
    """Return where our own actors run: on this node, and in no placement group of the caller's."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _start_server(options: ClusterOptions, name: str, lifetime: Mapping[str, str]) -> Any:
    sources = {library: absolute_source(source) for library, source in options.libraries.items()}
    actor = ServerActor.options(name=_actor_name(name), namespace=NAMESPACE, scheduling_strategy=_here(), **lifetime)
    try:
        return actor.remote(sources, options.memory_per_worker)
    except ValueError as taken:  # Ray's ActorAlreadyExistsError
        raise ClusterError(
            "another process of this Ray job has workers by init already: use its session, or give these workers a "
            "cluster_name"
            if name.startswith(_OURS)
            else f"another process is just starting the cluster {name!r}: call init again when it is there"
        ) from taken


def _start_agents(
    options: ClusterOptions, group: PlacementGroup, address: ServerAddress, lifetime: Mapping[str, str]
) -> list[Any]:
    """Start one agent for each node that holds bundles, with the slots of these bundles together."""
    nodes: Mapping[int, str] = placement_group_table(group)["bundles_to_node_id"]
    slots: Counter[str] = Counter()
    first: dict[str, int] = {}
    for bundle, size in enumerate(options.sizes()):
        slots[nodes[bundle]] += size
        first.setdefault(nodes[bundle], bundle)
    return [
        NodeActor.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, first[node]), **lifetime).remote(
            address, slots[node], options
        )
        for node in first
    ]


def _cause(failure: BaseException) -> str:
    cause = getattr(failure, "cause", None)
    return str(cause or failure).strip().splitlines()[-1]
