"""A node agent that a driver, or an actor of Ray, runs as a child process (:class:`.ChildProgram`).

It reads its settings, one line of JSON, from stdin (a token must not appear in argv). It answers with one line of JSON
on stdout when the node has joined the server. It ends when the driver, or stdin, ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from alchemist_ray.errors import AlchemistError
from alchemist_ray.mpi_backend.logs import configure_logging
from alchemist_ray.mpi_backend.node.agent import NodeAgent
from alchemist_ray.mpi_backend.node.local_group import RankLauncher
from alchemist_ray.protocol.node_settings import NodeSettings

STDIN = 0


def serve_driver(launcher: RankLauncher) -> int:
    """Serve the driver that the settings name; return the exit status."""
    line = sys.stdin.buffer.readline()
    if not line:  # the owner is gone
        launcher.stop()
        return 1
    settings = NodeSettings.from_json(line)
    try:
        with contextlib.ExitStack() as opened:
            log = opened.enter_context(open(f"{settings.log_dir}/node.log", "a")) if settings.log_dir else sys.stderr
            configure_logging("node", log)
            asyncio.run(_serve(NodeAgent(settings, launcher)))
    except AlchemistError as failure:
        _say(error=str(failure))
        return 1
    return 0


async def _serve(agent: NodeAgent) -> None:
    serving = asyncio.ensure_future(agent.run(lambda: _say(joined=True)))
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(STDIN, 4096):
            loop.remove_reader(STDIN)  # an end stays readable
            serving.cancel()

    loop.add_reader(STDIN, readable)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()
