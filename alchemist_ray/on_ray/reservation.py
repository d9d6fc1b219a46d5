"""The resources of a cluster of workers: reserved in Ray for as long as the cluster's server lives, and no longer."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from alchemist_ray.errors import ClusterError
from alchemist_ray.on_ray.cluster_options import ClusterOptions
from alchemist_ray.on_ray.shortage import asked, obstacle, ray_nodes, shortage

WATCH = "watch"
"""Concurrency group of a server's actor: its calls run beside all others."""
QUIET_SECONDS = 5.0
"""Time after which a caller who waits for resources is told so."""
ANSWER_SECONDS = 2.0
"""Ray gets at least this long to answer, also from a caller who does not want to wait."""

log = logging.getLogger("alchemist")


class Reservation:
    """Holds the placement group of a cluster, and ends with the cluster's server.

    Ray keeps the placement group of an actor, or of a driver, until its whole job is over. So a killed actor that had
    workers would leave their CPUs reserved. A group that a detached actor has made ends with that actor. This is such
    an actor. It waits for the end of the server, which belongs to the process that uses the workers.

    Parameters
    ----------
    server : ActorHandle
        The server's actor.
    options : ClusterOptions
        What to reserve.
    name : str
        Name of the cluster.
    """

    def __init__(self, server: Any, options: ClusterOptions, name: str) -> None:
        selectors = [dict(options.label_selector)] * len(options.sizes()) if options.label_selector else None
        self._group = placement_group(
            options.bundles(),
            strategy=options.placement_strategy,
            name=f"alchemist-{name}-{secrets.token_hex(4)}",  # Ray keeps the name of a removed group for a while
            bundle_label_selector=selectors,
        )
        threading.Thread(target=self._end_with, args=(server,), daemon=True).start()

    def group(self) -> PlacementGroup:
        """Return the placement group; Ray may not have its resources yet."""
        return self._group

    def _end_with(self, server: Any) -> None:
        """Wait for the end of the server; then give the resources back, and end."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(server.until_end.options(concurrency_group=WATCH).remote())
        try:
            remove_placement_group(self._group)
        finally:
            ray.kill(ray.get_runtime_context().current_actor)


ReservationActor = ray.remote(num_cpus=0)(Reservation)


def await_resources(group: PlacementGroup, options: ClusterOptions) -> None:
    """Wait until Ray has the resources of a placement group.

    Raises
    ------
    ClusterError
        If they are not there in time; the error says what is missing.
    """
    seconds = max(options.timeout, ANSWER_SECONDS)
    quiet = min(seconds, QUIET_SECONDS)
    if group.wait(quiet):
        return
    if seconds > quiet:
        nodes = ray_nodes()
        log.warning("Waiting up to %g s for Ray to give %s. %s", seconds, asked(options), obstacle(options, nodes))
        if group.wait(seconds - quiet):
            return
    raise ClusterError(shortage(options, ray_nodes(), seconds))
