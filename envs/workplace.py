"""The server of an environment: one that is named, one of this process, or one in the Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alchemist_ray.client.session import AlchemistSession
from alchemist_ray.envs.settings import EnvSettings

if TYPE_CHECKING:  # Ray is imported only if the workers are there
    from alchemist_ray.on_ray.cluster_options import ClusterOptions


class Workplace:
    """Finds the server of an environment, or starts one in the Ray cluster.

    Parameters
    ----------
    settings : EnvSettings
        The settings of the environment.
    """

    def __init__(self, settings: EnvSettings) -> None:
        self._settings = settings
        self._own = ""

    def new_session(self) -> AlchemistSession:
        """Return a session for the server, which is not connected yet."""
        seconds = self._settings.reset_timeout
        if self._settings.cluster is None:
            return AlchemistSession(verbose=False, task_timeout=seconds)
        from alchemist_ray.on_ray.shared_files import SharedFilesSession

        return SharedFilesSession(verbose=False, task_timeout=seconds)

    def open(self, wait: float = 0.0) -> tuple[str | None, int | None, str | None]:
        """Return host name, port and token of the server, as :meth:`.AlchemistSession.connect` takes them.

        Parameters
        ----------
        wait : float
            Seconds to wait for resources of Ray, if the settings do not say longer.

        Raises
        ------
        ClusterError
            If Ray does not give the resources in time, or has no cluster of the name in the settings.
        """
        settings = self._settings
        if settings.cluster is None:
            return settings.hostname, settings.port, settings.token
        from alchemist_ray.on_ray import clusters

        name = settings.cluster.partition(":")[2]
        cluster = clusters.find_cluster(name) if name else clusters.start_cluster(*self._own_cluster(wait))
        if cluster is None:
            raise clusters.no_such_cluster(name)
        address = cluster.address
        return address.hostname, address.port, address.token

    def _own_cluster(self, wait: float) -> tuple[ClusterOptions, str]:
        """Return what to ask of Ray for this environment alone, and the name of its cluster."""
        from alchemist_ray.on_ray import cluster_options, clusters

        settings = self._settings
        self._own = clusters.new_cluster_name()
        options = cluster_options.ClusterOptions(
            settings.num_workers,
            placement_strategy=settings.placement.upper(),
            label_selector=settings.labels,
            timeout=cluster_options.DEFAULT_TIMEOUT if settings.wait is None else max(wait, settings.wait),
        )
        return options, self._own

    def close(self) -> None:
        """End the server, if it belongs to the environment alone."""
        if self._own:
            from alchemist_ray.on_ray import clusters

            clusters.end_cluster(self._own)
            self._own = ""
