"""``alchemist status``: the nodes, workers, sessions, matrices and tasks of a server."""

from __future__ import annotations

import argparse
import time
from typing import Any

from alchemist_ray.cli.arguments import add_server, ask, nodes, seconds
from alchemist_ray.cli.printing import print_table, size_text
from alchemist_ray.errors import AlchemistError, NodeError, NotConnectedError, ServerUnreachableError
from alchemist_ray.protocol import messages as m

POLL_SECONDS = 0.5
"""Time between two looks at a server whose nodes are waited for."""


def add(commands: Any) -> None:
    """Add the command."""
    status = commands.add_parser(
        "status", help="show the nodes, workers, sessions, matrices and tasks of a server", description=_status.__doc__
    )
    status.set_defaults(run=_status)
    add_server(status)
    status.add_argument(
        "--nodes", type=nodes, metavar="N", help="wait until the server has N nodes, and show their names only"
    )
    status.add_argument(
        "--wait",
        type=seconds,
        default=60.0,
        metavar="S",
        help="with --nodes: fail if the server does not have them after S seconds (default: 60)",
    )


def _status(arguments: argparse.Namespace) -> int:
    """Show the nodes, workers, sessions, matrices and tasks of a server."""
    if arguments.nodes is not None:
        names = _await_nodes(arguments)
        print(f"{len(names)} nodes have joined the server: {', '.join(names)}")
        return 0
    status = ask(arguments, m.AskStatus)
    free = sum(row["session"] is None for row in status["workers"])
    print(f"Alchemist {status['version']} on {status['host']} ({status['hostname']}:{status['port']})")
    waiting = f", {status['waiting']} of them waiting for workers" if status["waiting"] else ""
    print(f"{len(status['workers'])} workers, {free} free; {len(status['sessions'])} sessions{waiting}\n")
    print_table(
        ("Node", "Address", "Slots", "Free", "Cores", "Memory", "Labels", "Used by"),
        [
            (
                row["name"],
                row["address"],
                row["slots"],
                row["free"],
                row["cores"],
                size_text(row["memory"]),
                ", ".join(f"{key}={value}" for key, value in row["labels"].items()) or "-",
                ", ".join(f"session {session}: {count}" for session, count in row["sessions"].items()) or "-",
            )
            for row in status["nodes"]
        ],
    )
    print()
    print_table(
        ("Worker", "Node", "Address", "Process", "State", "Session"),
        [
            (row["name"], row["host"], _address(row), row["pid"] or "", row["state"], row["session"] or "")
            for row in status["workers"]
        ],
    )
    for session in status["sessions"]:
        _print_session(session)
    return 0


def _await_nodes(arguments: argparse.Namespace) -> list[str]:
    """Wait until the server runs and has as many nodes as the options say; return their names.

    Raises
    ------
    NodeError
        If it has fewer nodes when the time is up; the error says which.
    ServerUnreachableError
        If no server answers when the time is up.
    """
    deadline = time.monotonic() + arguments.wait
    while True:
        names: list[str] = []
        absent: AlchemistError | None = None
        try:
            names = [row["name"] for row in ask(arguments, m.AskStatus)["nodes"]]
        except (ServerUnreachableError, NotConnectedError) as failure:
            absent = failure
        if len(names) >= arguments.nodes:
            return names
        if time.monotonic() >= deadline:
            raise absent or NodeError(
                f"after {arguments.wait:g} s, {len(names)} of {arguments.nodes} nodes have joined the server at "
                f"{arguments.hostname}:{arguments.port}: {', '.join(names) or 'none'}. The output of the node agents "
                "says what the others wait for"
            )
        time.sleep(POLL_SECONDS)


def _address(row: dict[str, Any]) -> str:
    return f"{row['address']}:{row['port']}" if row["port"] else ""


def _print_session(session: dict[str, Any]) -> None:
    print(
        f"\nSession {session['id']}, {session['software']} at {session['client']}, for {session['age_seconds']:.0f} s"
    )
    workers = session["workers"]
    print_table(
        ("Rank", "Memory in use", "of", "Running task", "for"),
        [
            (
                row["rank"],
                size_text(row["memory_in_use"]),
                size_text(row["memory"]),
                row["task"] or "-",
                f"{row['task_seconds']:.1f} s" if row["task"] else "",
            )
            for row in workers
        ],
    )
    if workers and workers[0]["matrices"]:
        print()
        print_table(
            ("Matrix", "Shape", "Type", "Layout", "Grid", "On rank 0"),
            [
                (
                    matrix["id"],
                    "{} x {}".format(*matrix["shape"]),
                    matrix["dtype"],
                    matrix.get("pair", "sparse rows"),
                    "{}x{}".format(*matrix["grid"]) if "grid" in matrix else "",
                    size_text(matrix["local_bytes"]) + ("" if matrix["complete"] else ", incomplete"),
                )
                for matrix in workers[0]["matrices"]
            ],
        )
