"""Sessions whose workers are on the nodes of Ray."""

from __future__ import annotations

from alchemist_ray.client.session import AlchemistSession


class SharedFilesSession(AlchemistSession):
    """A session whose workers see the files of its process, as programs on the nodes of one cluster mostly do.

    A relative path begins in the directory of this process, as with a server that the process starts for itself.
    """

    @property
    def shares_directory(self) -> bool:
        """Whether relative paths of this process mean the same to the server."""
        return True
