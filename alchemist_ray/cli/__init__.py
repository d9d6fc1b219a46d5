"""The command ``alchemist``: start a server, look at one, run an experiment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from alchemist_ray._version import __version__
from alchemist_ray.cli import libraries, node, run, serve, slurm, ssh_nodes, status
from alchemist_ray.errors import AlchemistError

COMMANDS = (serve, node, ssh_nodes, slurm, status, libraries, run)
"""Each is a module with ``add(commands)``, which adds its parser; the parser's default `run` runs it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except AlchemistError as failure:
        print("\n".join([f"alchemist: {failure}", *getattr(failure, "__notes__", [])]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alchemist", description="Run MPI libraries from Ray and Python.")
    parser.add_argument("--version", action="version", version=f"alchemist-ray {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
