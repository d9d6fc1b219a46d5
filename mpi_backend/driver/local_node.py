"""The node agent that a driver starts beside itself, for the slots on its own host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from alchemist_ray.host.child_program import ChildProgram

if TYPE_CHECKING:
    from alchemist_ray.protocol.node_settings import NodeSettings

JOIN_SECONDS = 30.0
"""Time for the agent to start and to join."""
STOP_SECONDS = 5.0
"""Time for the agent to end its ranks and itself."""


class LocalNode:
    """A node agent in a child process. It ends with this process, however that ends.

    The process is started at once and loads its modules, until :meth:`join` tells it which driver to join.

    Parameters
    ----------
    mpi, mpiexec, python : str
        How it starts ranks, as in :class:`.ServerOptions`.
    """

    def __init__(self, mpi: str, mpiexec: str, python: str) -> None:
        module = "alchemist_ray.mpi_backend.node.program"
        self._program = ChildProgram(module, str(os.getpid()), mpi, mpiexec, python)

    async def join(self, settings: NodeSettings) -> None:
        """Have the agent join a driver, and wait until it has.

        Raises
        ------
        ServerStartError
            If the agent cannot start or join.
        """
        import asyncio  # here and not above: a driver starts its agent before it loads anything else

        from alchemist_ray.errors import ServerStartError

        facts = await asyncio.to_thread(self._program.tell, settings.to_json(), JOIN_SECONDS)
        if facts is None:
            raise ServerStartError(f"its node agent has ended, or has not joined it within {JOIN_SECONDS:g} s")
        if "error" in facts:
            raise ServerStartError(facts["error"])

    def stop(self) -> None:
        """End the agent and its ranks. More calls do nothing."""
        self._program.stop(STOP_SECONDS)
