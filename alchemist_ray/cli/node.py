"""``alchemist node``: offer this machine's workers to a server until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alchemist_ray.cli.arguments import address, label, seconds, slots, token_in
from alchemist_ray.cli.serve import add_flag
from alchemist_ray.errors import AuthenticationError, NodeError
from alchemist_ray.protocol.server_options import ServerOptions
from alchemist_ray.transport.credentials import find_token

if TYPE_CHECKING:
    from alchemist_ray.mpi_backend.node.agent import NodeAgent

STDIN = 0


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
    node.add_argument(
        "--token-file",
        type=Path,
        metavar="F",
        help="file with the server's token (mode 0600); -: the first line of stdin is the token",
    )
    node.add_argument(
        "--until-stdin-ends",
        action="store_true",
        help="end when stdin ends, too: with the ssh that has started this command, for example",
    )
    node.add_argument("--log-dir", default="", metavar="D", help="where to keep logs (default: nowhere)")
    node.add_argument(
        "--wait", type=seconds, default=30.0, metavar="S", help="try for S seconds to join the server (default: 30)"
    )
    node.add_argument(
        "--driver-grace",
        type=seconds,
        default=0.0,
        metavar="S",
        help="let the ranks go on for S seconds after the server was lost, so that they finish what they write, and "
        "look for the server for so long at least; they end when it comes back (default: 0)",
    )
    for option in dataclasses.fields(ServerOptions):
        if option.name in ("mpi", "mpiexec", "python"):
            add_flag(node, option)


def _node(arguments: argparse.Namespace) -> int:
    try:
        from alchemist_ray.host.cores import allowed_cores
        from alchemist_ray.mpi_backend.logs import configure_logging
        from alchemist_ray.mpi_backend.node.agent import NodeAgent
        from alchemist_ray.mpi_backend.node.launching import launcher_of
        from alchemist_ray.protocol.node_settings import NodeSettings
    except ImportError as missing:
        raise NodeError(f"{missing}: pip install 'alchemist-ray[server]'") from missing
    settings = NodeSettings(
        driver=arguments.driver,
        token=_token(arguments),
        slots=arguments.slots or allowed_cores(),
        name=arguments.name or socket.gethostname(),
        labels=dict(arguments.label),
        address=arguments.address,
        bind=arguments.bind,
        log_dir=os.path.abspath(arguments.log_dir) if arguments.log_dir else "",
        wait=arguments.wait,
        driver_grace=arguments.driver_grace,
        mpi=arguments.mpi,
        mpiexec=arguments.mpiexec,
        python=arguments.python,
    )
    configure_logging("node", sys.stdout)
    launcher = launcher_of(settings.mpi, settings.mpiexec, settings.python)
    return asyncio.run(_run(NodeAgent(settings, launcher), arguments.until_stdin_ends))


def _token(arguments: argparse.Namespace) -> str:
    if str(arguments.token_file) == "-":
        return _line_of_stdin()
    return token_in(arguments) or find_token(arguments.driver[1])


def _line_of_stdin() -> str:
    """Return the first line of stdin, and read nothing after it."""
    line = b""
    while not line.endswith(b"\n") and (octet := os.read(STDIN, 1)):
        line += octet
    if not line.strip():
        raise AuthenticationError("the first line of stdin is empty, and --token-file - takes the token from there")
    return line.decode(errors="replace").strip()


async def _run(agent: NodeAgent, until_stdin_ends: bool = False) -> int:
    """Run the agent until the server ends, or until SIGTERM, SIGINT or SIGHUP, or until stdin ends."""
    serving = asyncio.ensure_future(agent.run())
    if until_stdin_ends:
        _call_when_stdin_ends(serving.cancel)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it on purpose
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    return 0


def _call_when_stdin_ends(end: Callable[[], object]) -> None:
    def readable() -> None:
        if not os.read(STDIN, 4096):
            loop.remove_reader(STDIN)
            end()

    loop = asyncio.get_running_loop()
    try:
        loop.add_reader(STDIN, readable)
    except PermissionError:  # a file, or /dev/null, has no end that can be waited for
        raise NodeError("--until-stdin-ends needs a stdin that another program holds open, such as a pipe") from None
