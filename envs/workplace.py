"""The server of an environment: one that is named, one of this process, or one in the Ray cluster."""

from __future__ import annotations

from alchemist_ray.envs.settings import EnvSettings


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

    def open(self) -> tuple[str | None, int | None, str | None]:
        """Return host name, port and token of the server, as :meth:`.AlchemistSession.connect` takes them.

        Raises
        ------
        ClusterError
            If Ray does not give the resources in time.
        """
        settings = self._settings
        if settings.cluster is None:
            return settings.hostname, settings.port, settings.token
        from alchemist_ray.on_ray import clusters

        address = clusters.find_cluster(clusters.job_cluster_name())
        if address is None:
            options = clusters.ClusterOptions(
                settings.num_workers,
                placement_strategy=settings.placement.upper(),
                label_selector=settings.labels,
                timeout=max(settings.wait, clusters.DEFAULT_TIMEOUT),
            )
            self._own = clusters.new_cluster_name()
            address = clusters.start_cluster(options, self._own)
        return address.hostname, address.port, address.token

    def close(self) -> None:
        """End the server, if it belongs to the environment alone."""
        if self._own:
            from alchemist_ray.on_ray import clusters

            clusters.stop_cluster(self._own)
            self._own = ""
