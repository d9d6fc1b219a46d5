"""``alchemist ssh-nodes``: offer the slots of other hosts to a server, over ssh, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from alchemist_ray.cli.arguments import address, token_in
from alchemist_ray.cluster.host_file import read_host_file
from alchemist_ray.cluster.ssh import SshCommand, SshNodes
from alchemist_ray.transport.credentials import find_token

SSH = "ssh -o BatchMode=yes -o ServerAliveInterval=15"
"""No questions, and a host that is lost is noticed within a minute."""

_DESCRIPTION = """\
Start a node agent on each host of a list, over ssh, and keep them until Ctrl-C, or until the server ends. Each line of
HOSTFILE is HOST [slots=N] [label=KEY=VALUE ...] or HOST:N; # begins a comment. Without slots, a host offers as many as
it has cores. The token goes to the agents through the encrypted connection of ssh. The hosts need a key of yours (ssh
must not ask for a password), and Alchemist, by default at the same path as here.
"""


def add(commands: Any) -> None:
    """Add the command."""
    nodes = commands.add_parser(
        "ssh-nodes",
        help="offer the workers of other hosts to a server, over ssh, until Ctrl-C",
        description=_DESCRIPTION,
    )
    nodes.set_defaults(run=_ssh_nodes, refuse=nodes.error)
    nodes.add_argument("host_file", type=Path, metavar="HOSTFILE", help="the hosts, one on each line")
    nodes.add_argument(
        "--driver", type=address, required=True, metavar="HOST:PORT", help="where the hosts reach the server"
    )
    nodes.add_argument("--token-file", type=Path, metavar="F", help="file with the server's token (mode 0600)")
    nodes.add_argument("--ssh", default=SSH, metavar="COMMAND", help="ssh and its options (default: %(default)s)")
    nodes.add_argument(
        "--remote-command",
        default=shlex.join([sys.executable, "-P", "-m", "alchemist_ray.cli"]),
        metavar="COMMAND",
        help="the command alchemist on the hosts (default: the Python of this command, at the same path)",
    )
    nodes.add_argument(
        "--node-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option of `alchemist node`, for all hosts, such as --node-option=--wait=60",
    )


def _ssh_nodes(arguments: argparse.Namespace) -> int:
    ssh = tuple(shlex.split(arguments.ssh))
    if not ssh:
        arguments.refuse("--ssh needs a command")
    lines = read_host_file(arguments.host_file)
    command = SshCommand(
        ssh=ssh,
        remote=arguments.remote_command,
        driver=arguments.driver,
        token=token_in(arguments) or find_token(arguments.driver[1]),
        node_options=tuple(arguments.node_option),
    )
    width = max(len(line.host) for line in lines)
    failed = asyncio.run(_run(SshNodes(command, lambda host, text: _say(f"{host}:".ljust(width + 1), text)), lines))
    if failed:
        print(f"alchemist: {len(failed)} of {len(lines)} hosts failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


async def _run(nodes: SshNodes, lines: Any) -> list[str]:
    """Run the agents until they end; SIGTERM, SIGINT and SIGHUP let them end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it on purpose
            asyncio.get_running_loop().add_signal_handler(number, nodes.end)
    return await nodes.run(lines)


def _say(prefix: str, text: str) -> None:
    print(f"{prefix} {text}", flush=True)
