"""The node agent beside a driver, as a process of its own: ``python -m alchemist_ray.mpi_backend.node.program``.

Its arguments are the driver's process id, and how to start ranks (:func:`.agent.launcher_of`). The program reads its
settings, one line of JSON, from stdin (a token must not appear in argv). It answers with one line of JSON on stdout
when the node has joined the server. It ends when the driver, or stdin, ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from alchemist_ray.errors import AlchemistError
from alchemist_ray.mpi_backend.worker.parent_death import die_with_parent

if TYPE_CHECKING:
    from alchemist_ray.mpi_backend.node.agent import NodeAgent

STDIN = 0


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main(parent: int, mpi: str = "fork", mpiexec: str = "", python: str = "") -> int:
    """Run the agent of the driver `parent`; return the exit status."""
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the driver decides when it ends
    from alchemist_ray.mpi_backend.logs import configure_logging
    from alchemist_ray.mpi_backend.node.agent import NodeAgent, launcher_of
    from alchemist_ray.mpi_backend.node.settings import NodeSettings

    try:
        launcher = launcher_of(mpi, mpiexec, python)
        line = sys.stdin.buffer.readline()
        if not line:
            launcher.stop()
            return 1
        settings = NodeSettings.from_json(line)
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
    asyncio.get_running_loop().add_reader(STDIN, lambda: os.read(STDIN, 4096) or serving.cancel())
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
