"""``alchemist node``: offer this machine's workers to a server until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alchemist_ray.cli.arguments import address, label, seconds, slots
from alchemist_ray.errors import NodeError
from alchemist_ray.transport.credentials import find_token, read_token

if TYPE_CHECKING:
    from alchemist_ray.mpi_backend.node.agent import NodeAgent


def add(commands: Any) -> None:
    """Add the command."""
    node = commands.add_parser(
        "node",
        help="offer this machine's workers to a server until Ctrl-C",
        description="Offer slots for MPI ranks on this machine to a server, until Ctrl-C or until the server ends. The "
        "node connects to the server; nothing connects to the node.",
    )
    node.set_defaults(run=_node)
    node.add_argument("--driver", type=address, required=True, metavar="HOST:PORT", help="where the server listens")
    node.add_argument("--slots", type=slots, metavar="N", help="MPI ranks to offer (default: the cores it may use)")
    node.add_argument("--name", help="name of the node, different from all others (default: the host's name)")
    node.add_argument(
        "--label", type=label, action="append", default=[], metavar="KEY=VALUE", help="a label that clients may ask for"
    )
    node.add_argument(
        "--address",
        default="",
        metavar="A",
        help="address at which clients and other nodes reach the workers (default: that which the server sees)",
    )
    node.add_argument("--bind", default="", metavar="A", help="interface the workers listen on (default: --address)")
    node.add_argument("--token-file", type=Path, metavar="F", help="file with the server's token (mode 0600)")
    node.add_argument("--log-dir", default="", metavar="D", help="where to keep logs (default: nowhere)")
    node.add_argument(
        "--wait", type=seconds, default=30.0, metavar="S", help="try for S seconds to reach the server (default: 30)"
    )


def _node(arguments: argparse.Namespace) -> int:
    try:
        from alchemist_ray.host.cores import allowed_cores
        from alchemist_ray.mpi_backend.logs import configure_logging
        from alchemist_ray.mpi_backend.node.agent import NodeAgent, warm_process
        from alchemist_ray.mpi_backend.node.settings import NodeSettings
    except ImportError as missing:
        raise NodeError(f"{missing}: pip install 'alchemist-ray[server]'") from missing
    settings = NodeSettings(
        driver=arguments.driver,
        token=read_token(arguments.token_file) if arguments.token_file else find_token(arguments.driver[1]),
        slots=arguments.slots or allowed_cores(),
        name=arguments.name or socket.gethostname(),
        labels=dict(arguments.label),
        address=arguments.address,
        bind=arguments.bind,
        log_dir=os.path.abspath(arguments.log_dir) if arguments.log_dir else "",
        wait=arguments.wait,
    )
    configure_logging("node", sys.stdout)
    return asyncio.run(_run(NodeAgent(settings, warm_process())))


async def _run(agent: NodeAgent) -> int:
    """Run the agent until the server ends, or until SIGTERM, SIGINT or SIGHUP."""
    serving = asyncio.ensure_future(agent.run())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it on purpose
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    return 0
