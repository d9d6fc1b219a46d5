"""What a caller asks of a cluster of workers on Ray's nodes, checked before Ray is asked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alchemist_ray.errors import ArgumentError, ArgumentValueError

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
DEFAULT_TIMEOUT = 120.0
"""Seconds to wait for resources."""

_WHERE = "init"
NAME = "[A-Za-z0-9][A-Za-z0-9_.-]*"
"""Regular expression of the names of clusters."""


@dataclass(frozen=True)
class ClusterOptions:
    """What a cluster of workers takes of Ray, under the names of Ray Train's ``ScalingConfig``, and how it is served.

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
    libraries : mapping
        Name -> Python module or path of libraries that the server offers beside the installed ones.
    memory_per_worker : int, optional
        Bytes that each worker has for matrices; by default its share of the memory of its node.

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
    libraries: Mapping[str, str] = field(default_factory=dict)
    memory_per_worker: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_workers", "workers_per_node", "memory_per_worker"):
            value = getattr(self, name)
            if value is not None:
                check_count(name, value)
        if self.placement_strategy not in STRATEGIES:
            raise ArgumentValueError(
                _WHERE, f"placement_strategy is {self.placement_strategy!r}; it must be one of {', '.join(STRATEGIES)}"
            )
        for name in ("label_selector", "libraries"):
            _check_texts(name, getattr(self, name))
        _check_resources(self.resources_per_worker)
        _check_seconds("timeout", self.timeout)

    def needs(self) -> dict[str, float]:
        """Return the resources of one rank, without those of which it takes none."""
        return {name: count for name, count in self.resources_per_worker.items() if count}

    def sizes(self) -> list[int]:
        """Return the number of ranks in each bundle."""
        each = self.workers_per_node or 1
        full, rest = divmod(self.num_workers, each)
        return [each] * full + ([rest] if rest else [])

    def bundles(self) -> list[dict[str, float]]:
        """Return the resources of each bundle."""
        return [{name: count * size for name, count in self.needs().items()} for size in self.sizes()]


def check_count(name: str, value: Any) -> None:
    """Check that a value is a whole number of at least 1.

    Raises
    ------
    ArgumentValueError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentValueError(_WHERE, f"{name} must be an integer of at least 1, not {value!r}")


def check_name(name: Any) -> None:
    """Check the name that a caller gives a cluster.

    Raises
    ------
    ArgumentValueError
        If it is not a name.
    """
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ArgumentValueError(
            _WHERE, f"cluster_name must be letters, digits, '_', '.' and '-', with one of the first two at the start, "
            f"not {name!r}"
        )  # fmt: skip


def _check_texts(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ArgumentError(_WHERE, f"{name} must be a mapping of str to str, not {value!r}")


def _check_resources(resources: Any) -> None:
    name = "resources_per_worker"
    if not isinstance(resources, Mapping) or not all(isinstance(key, str) for key in resources):
        raise ArgumentError(_WHERE, f"{name} must be a mapping of names of resources to numbers, not {resources!r}")
    for resource, count in resources.items():
        if isinstance(count, bool) or not isinstance(count, (int, float)):
            raise ArgumentError(_WHERE, f"{name}[{resource!r}] must be a number, not {count!r}")
        if not 0 <= count < math.inf:
            raise ArgumentValueError(_WHERE, f"{name}[{resource!r}] must be a finite number from 0 on, not {count!r}")
    if not any(resources.values()):
        raise ArgumentValueError(
            _WHERE, f"{name} is {dict(resources)!r}, so Ray would reserve nothing: give more than 0 of a resource, "
            "such as {'CPU': 1}"
        )  # fmt: skip


def _check_seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentError(_WHERE, f"{name} must be a number of seconds, not {value!r}")
    if not 0 <= value < math.inf:
        raise ArgumentValueError(_WHERE, f"{name} must be a finite number of seconds from 0 on, not {value!r}")
