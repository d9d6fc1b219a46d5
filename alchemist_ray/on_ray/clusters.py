"""A server whose workers are on the nodes of a Ray cluster, and count as Ray's resources.

A placement group reserves the resources of the workers. On each node that holds bundles of it, one actor runs a node
agent with the slots of these bundles together. Another actor runs the driver. So Ray decides which nodes run MPI ranks,
its autoscaler sees what is asked, and everything ends with the Ray job (or stays, if the cluster is detached).
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from alchemist_ray.client.local_server import start_server
from alchemist_ray.errors import ArgumentError, ArgumentValueError, ClusterError
from alchemist_ray.host.child_program import ChildProgram
from alchemist_ray.protocol.handshake import new_token
from alchemist_ray.protocol.node_settings import NodeSettings
from alchemist_ray.protocol.server_options import FORK

NAMESPACE = "alchemist"
"""Ray namespace of our actors."""
STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
DEFAULT_TIMEOUT = 120.0
"""Seconds to wait for resources."""
START_SECONDS = 60.0
"""Seconds for the actors to start, once the resources are there."""

_servers: dict[str, Any] = {}
"""The actors of the servers that this process has started: Ray ends an actor when no handle is left."""

_AGENT = "alchemist_ray.mpi_backend.node.program"


@dataclass(frozen=True)
class ClusterOptions:
    """What a cluster of workers takes of Ray; the names are those of Ray Train's ``ScalingConfig``.

    Attributes
    ----------
    num_workers : int
        MPI ranks.
    workers_per_node : int, optional
        Ranks in each bundle, which is on one node; by default each rank is a bundle of its own.
    placement_strategy : {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"}
        How Ray places the bundles on nodes.
    resources_per_worker : mapping
        Ray resources of each rank.
    label_selector : mapping
        Labels that the nodes must have.
    timeout : float
        Seconds to wait for the resources.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If a value is of the wrong type or out of range.
    """

    num_workers: int
    workers_per_node: int | None = None
    placement_strategy: str = "PACK"
    resources_per_worker: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1})
    label_selector: Mapping[str, str] = field(default_factory=dict)
    timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        for name in ("num_workers", "workers_per_node"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ArgumentValueError("init", f"{name} must be an integer of at least 1, not {value!r}")
        if self.placement_strategy not in STRATEGIES:
            raise ArgumentValueError(
                "init", f"placement_strategy is {self.placement_strategy!r}; it must be one of {', '.join(STRATEGIES)}"
            )
        for name in ("resources_per_worker", "label_selector"):
            if not isinstance(getattr(self, name), Mapping):
                raise ArgumentError("init", f"{name} must be a mapping, not {getattr(self, name)!r}")
        if not 0 <= self.timeout < math.inf:
            raise ArgumentValueError("init", f"timeout must be a finite number of seconds, not {self.timeout!r}")

    def sizes(self) -> list[int]:
        """Return the number of ranks in each bundle."""
        each = self.workers_per_node or 1
        full, rest = divmod(self.num_workers, each)
        return [each] * full + ([rest] if rest else [])

    def bundles(self) -> list[dict[str, float]]:
        """Return the resources of each bundle."""
        return [{name: count * size for name, count in self.resources_per_worker.items()} for size in self.sizes()]


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is, and its token."""

    hostname: str
    port: int
    token: str = field(repr=False)


class ServerHolder:
    """Runs a driver without workers of its own, as a child process of a Ray actor."""

    def __init__(self) -> None:
        self._server = start_server(0, hostname=ray.util.get_node_ip_address(), token=new_token())
        self._agents: list[Any] = []
        self._group: PlacementGroup | None = None

    def address(self) -> ServerAddress:
        """Return where the driver is."""
        return ServerAddress(self._server.hostname, self._server.port, self._server.token)

    def keep(self, agents: list[Any], group: PlacementGroup) -> None:
        """Keep the actors of the nodes alive, and know what :func:`stop_cluster` removes."""
        self._agents, self._group = agents, group

    def kept(self) -> tuple[list[Any], PlacementGroup | None]:
        """Return what :meth:`keep` was given."""
        return self._agents, self._group

    def stop(self) -> None:
        """End the driver, and with it all agents and ranks."""
        self._server.stop()


class NodeHolder:
    """Runs a node agent, as a child process of a Ray actor."""

    def __init__(self, address: ServerAddress, slots: int, labels: Mapping[str, str]) -> None:
        context = ray.get_runtime_context()
        self._agent = ChildProgram(_AGENT, str(os.getpid()), FORK, "", "")
        here = ray.util.get_node_ip_address()
        settings = NodeSettings(
            driver=(address.hostname, address.port),
            token=address.token,
            slots=slots,
            name=f"{here}-{context.get_actor_id()[:8]}",
            labels={**labels, "ray.io/node-id": context.get_node_id()},
            address=here,
            wait=START_SECONDS,
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


ServerActor = ray.remote(num_cpus=0)(ServerHolder)
NodeActor = ray.remote(num_cpus=0)(NodeHolder)


def start_cluster(options: ClusterOptions, name: str, detached: bool = False) -> ServerAddress:
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
        If the resources are not there in time; the error says what is missing. Or if a node does not start.
    """
    lifetime = {"lifetime": "detached"} if detached else {}
    group = _reserve(options, name, detached)
    server, agents = None, []
    try:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        server = ServerActor.options(
            name=_actor_name(name), namespace=NAMESPACE, scheduling_strategy=here, **lifetime
        ).remote()
        address = cast("ServerAddress", ray.get(server.address.remote(), timeout=START_SECONDS))
        agents = _start_agents(options, group, address, lifetime)
        ray.get([agent.joined.remote() for agent in agents], timeout=START_SECONDS)
        ray.get(server.keep.remote(agents, group))
    except BaseException as failure:
        for actor in (*agents, *([server] if server is not None else [])):
            ray.kill(actor)
        remove_placement_group(group)
        if isinstance(failure, ray.exceptions.RayError):
            raise ClusterError(f"its actors did not start: {_cause(failure)}") from failure
        raise
    _servers[name] = server
    return address


def find_cluster(name: str) -> ServerAddress | None:
    """Return where the server of a cluster is; None if no cluster has that name."""
    try:
        server = ray.get_actor(_actor_name(name), namespace=NAMESPACE)
        return cast("ServerAddress", ray.get(server.address.remote(), timeout=START_SECONDS))
    except (ValueError, ray.exceptions.RayError):
        return None


def stop_cluster(name: str) -> None:
    """End a cluster: its ranks, its agents and its server; Ray gets the resources back. Nothing happens without one."""
    server = _servers.pop(name, None)
    try:
        server = server or ray.get_actor(_actor_name(name), namespace=NAMESPACE)
        agents, group = ray.get(server.kept.remote(), timeout=START_SECONDS)
    except (ValueError, ray.exceptions.RayError):
        return
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get([agent.stop.remote() for agent in agents], timeout=10)
        ray.get(server.stop.remote(), timeout=10)
    for actor in (*agents, server):
        ray.kill(actor)
    if group is not None:
        remove_placement_group(group)


def new_cluster_name() -> str:
    """Return the name of a cluster that nobody else shall find."""
    return secrets.token_hex(8)


def job_cluster_name() -> str:
    """Return the name of the cluster of this Ray job."""
    return f"job-{ray.get_runtime_context().get_job_id()}"


def _actor_name(name: str) -> str:
    return f"server-{name}"


def _cause(failure: BaseException) -> str:
    cause = getattr(failure, "cause", None)
    return str(cause or failure).strip().splitlines()[-1]


# --- resources --------------------------------------------------------------------------------------------------------


def _reserve(options: ClusterOptions, name: str, detached: bool) -> PlacementGroup:
    """Reserve the resources of all workers."""
    selectors = [dict(options.label_selector)] * len(options.sizes()) if options.label_selector else None
    group = placement_group(
        options.bundles(),
        strategy=options.placement_strategy,
        name=f"alchemist-{name}-{secrets.token_hex(4)}",  # Ray keeps the name of a removed group for a while
        lifetime="detached" if detached else None,
        bundle_label_selector=selectors,
    )
    try:
        ready = group.wait(options.timeout)
    except BaseException:
        remove_placement_group(group)
        raise
    if not ready:
        remove_placement_group(group)
        raise ClusterError(_shortage(options))
    return group


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
            address, slots[node], dict(options.label_selector)
        )
        for node in first
    ]


def _shortage(options: ClusterOptions) -> str:
    """Return in words what was asked and what the Ray cluster has."""
    wanted = {name: count * options.num_workers for name, count in options.resources_per_worker.items()}
    per_node = f" with {options.workers_per_node} on a node" if options.workers_per_node else ""
    labels = f" on nodes with the labels {dict(options.label_selector)}" if options.label_selector else ""
    rows = []
    free_by_node = ray._private.state.available_resources_per_node()
    for node in ray.nodes():
        if node["Alive"]:
            free = free_by_node.get(node["NodeID"], {})
            has = ", ".join(
                f"{free.get(name, 0):g} of {node['Resources'].get(name, 0):g} {name}" for name in sorted(wanted)
            )
            rows.append(f"{node['NodeManagerAddress']}: {has} free")
    asked = ", ".join(f"{count:g} {name}" for name, count in wanted.items())
    return (
        f"Ray has not given {asked} for {options.num_workers} workers{per_node} ({options.placement_strategy}){labels} "
        f"within {options.timeout:g} s. Its nodes: {'; '.join(rows)}. Request fewer workers, let other tasks and "
        "actors use fewer CPUs, or add nodes"
    )
