"""The node agent that a driver starts beside itself, for the slots on its own host."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

from alchemist_ray.errors import ServerStartError
from alchemist_ray.mpi_backend.node.settings import NodeSettings

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
        program = [sys.executable, "-P", "-m", "alchemist_ray.mpi_backend.node.program"]
        self._process = subprocess.Popen(
            [*program, str(os.getpid()), mpi, mpiexec, python],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in this terminal is for the driver
        )

    async def join(self, settings: NodeSettings) -> None:
        """Have the agent join a driver, and wait until it has.

        Raises
        ------
        ServerStartError
            If the agent cannot start or join.
        """
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(settings.to_json().encode() + b"\n")
            self._process.stdin.flush()
            line = await asyncio.wait_for(asyncio.to_thread(self._process.stdout.readline), JOIN_SECONDS)
        except TimeoutError:
            raise ServerStartError(f"its node agent has not joined it within {JOIN_SECONDS:g} s") from None
        except BrokenPipeError:
            line = b""
        if not line:
            raise ServerStartError(f"its node agent has ended with status {self._process.wait()}; see its log")
        facts = json.loads(line)
        if "error" in facts:
            raise ServerStartError(facts["error"])

    def stop(self) -> None:
        """End the agent and its ranks."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
