"""Why Ray has not given the resources of a cluster, in words: what was asked, what there is, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from alchemist_ray.on_ray.cluster_options import ClusterOptions

Resources = Mapping[str, float]

SLACK = 1e-6
"""Ray counts resources in units of 1e-4; sums of floats are a little off."""


@dataclass(frozen=True)
class RayNode:
    """A node of Ray: its address, its labels, and its resources, all of them and those that are free."""

    address: str
    labels: Mapping[str, str]
    total: Resources
    free: Resources

    def has(self, selector: Mapping[str, str]) -> bool:
        """Whether a label selector chooses this node."""
        return all(_is_chosen(self.labels.get(key), wanted) for key, wanted in selector.items())


def ray_nodes() -> list[RayNode]:
    """Return the nodes that are alive now."""
    free: Mapping[str, Resources] = ray._private.state.available_resources_per_node()
    return [
        RayNode(
            node["NodeManagerAddress"], node.get("Labels") or {}, node["Resources"], free.get(node["NodeID"], {})
        )
        for node in ray.nodes()
        if node["Alive"]
    ]  # fmt: skip


def fitting(needs: Resources, there: Resources) -> int:
    """Return how many times some needs fit into resources."""
    return min(math.floor(there.get(name, 0) / count + SLACK) for name, count in needs.items())


def shortage(options: ClusterOptions, nodes: Sequence[RayNode], seconds: float) -> str:
    """Return in words what Ray has not given within so many seconds."""
    rows = "; ".join(_row(options, node) for node in nodes)
    return f"Ray has not given {asked(options)} within {seconds:g} s. Its nodes: {rows}. {obstacle(options, nodes)}"


def asked(options: ClusterOptions) -> str:
    """Return in words what is asked of Ray."""
    amounts = ", ".join(f"{count * options.num_workers:g} {name}" for name, count in options.needs().items())
    workers = "1 worker" if options.num_workers == 1 else f"{options.num_workers} workers"
    per_node = f" with {options.workers_per_node} on a node" if options.workers_per_node else ""
    labels = f" on nodes with {_words(options.label_selector)}" if options.label_selector else ""
    return f"{amounts} for {workers}{per_node} ({options.placement_strategy}){labels}"


def obstacle(options: ClusterOptions, nodes: Sequence[RayNode]) -> str:
    """Return in words why the nodes do not hold the workers now, and what to do."""
    usable = [node for node in nodes if node.has(options.label_selector)]
    if not usable:
        return (
            "No node has these labels: choose labels that nodes have, or start nodes that have these, with "
            "ray start --labels"
        )
    absent = [name for name in options.needs() if not any(node.total.get(name) for node in usable)]
    if absent:
        whose = "None of the nodes with these labels" if options.label_selector else "No node"
        return f"{whose} has {' or '.join(absent)}: change resources_per_worker, or add nodes that have it"
    if not _could_hold(options, [node.total for node in usable]):
        return f"These nodes could not hold them even if nothing else ran: {_fewer(options)}, or add nodes"
    return (
        "Other tasks and actors use the rest: let them end, wait longer (init(timeout=seconds); wait in an "
        "env_config), request fewer workers, or add nodes"
    )


def _could_hold(options: ClusterOptions, nodes: Sequence[Resources]) -> bool:
    """Whether nodes with these resources have room for all bundles; the last bundle may be smaller than the others."""
    bundles = options.bundles()
    full, last = bundles[0], bundles[-1]
    equal = bundles.count(full)
    if options.placement_strategy == "STRICT_PACK":
        whole = {name: sum(bundle[name] for bundle in bundles) for name in full}
        return any(fitting(whole, node) for node in nodes)
    if options.placement_strategy == "STRICT_SPREAD":
        is_room = [sum(fitting(bundle, node) > 0 for node in nodes) for bundle in (full, last)]
        return is_room[0] >= equal and is_room[1] >= len(bundles)
    places = [fitting(full, node) for node in nodes]
    if equal == len(bundles) or sum(places) != equal:
        return sum(places) >= equal
    return any(fitting(last, _rest(node, full, count)) for node, count in zip(nodes, places, strict=True))


def _rest(there: Resources, bundle: Resources, count: int) -> Resources:
    return {name: there.get(name, 0) - amount * count for name, amount in bundle.items()}


def _fewer(options: ClusterOptions) -> str:
    """Return in words how to ask for less."""
    if options.placement_strategy == "STRICT_SPREAD":
        return "request fewer workers, more of them on a node (workers_per_node), or another placement_strategy"
    if options.placement_strategy == "STRICT_PACK":
        return "request fewer workers, or another placement_strategy"
    return "request fewer workers" + (", fewer of them on a node (workers_per_node)" * bool(options.workers_per_node))


def _row(options: ClusterOptions, node: RayNode) -> str:
    """Return a node in words: its address, its labels if labels matter, what it has of each resource."""
    labels = {key: node.labels[key] for key in options.label_selector if key in node.labels}
    shown = f" ({_words(labels) if labels else 'no such label'})" if options.label_selector else ""
    has = ", ".join(
        f"{node.free.get(name, 0):g} of {node.total.get(name, 0):g} {name}" for name in sorted(options.needs())
    )
    return f"{node.address}{shown}: {has} free"


def _words(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items())


def _is_chosen(label: Any, wanted: str) -> bool:
    """Whether a node's label is one that a selector wants: ``a``, ``!a``, ``in(a, b)``, ``!in(a, b)``."""
    text = wanted.removeprefix("!")
    values = [value.strip() for value in text[3:-1].split(",")] if text.startswith("in(") else [text]
    return (label in values) != wanted.startswith("!")
