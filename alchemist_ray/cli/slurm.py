"""``alchemist slurm``: run a program in a Slurm job, beside a server with workers on all nodes of the job."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any

from alchemist_ray.cli.arguments import nodes, port, slots
from alchemist_ray.cluster.slurm import SlurmJob, seconds_of, submit

_DESCRIPTION = """\
Submit a Slurm job that runs a program beside an Alchemist server: the driver and the program run on the job's first
node, and workers on all its nodes. The program starts when all nodes have joined, and the job ends with it and has its
exit status. Sessions, and the functions for Ray, find the server by themselves: the program's environment has
ALCHEMIST_SERVER and ALCHEMIST_TOKEN_FILE. A minute before the job's time is over, the program gets SIGTERM.
"""

_EXAMPLE = """\
example:
  alchemist slurm submit --nodes 4 --workers-per-node 32 --time 1:00:00 -- python script.py --size 20000
"""


def add(commands: Any) -> None:
    """Add the command."""
    slurm = commands.add_parser("slurm", help="run a program with workers in a Slurm job", description=__doc__)
    actions = slurm.add_subparsers(required=True, metavar="ACTION")
    command = actions.add_parser(
        "submit",
        help="submit a job",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=_submit, refuse=command.error)
    command.add_argument("--nodes", type=nodes, required=True, metavar="N", help="nodes of the job")
    command.add_argument(
        "--workers-per-node", type=slots, required=True, metavar="W", help="workers on each node, with one CPU for each"
    )
    command.add_argument("--time", type=_time, metavar="T", help="limit of the run time, such as 1:30:00")
    command.add_argument("--partition", type=_line, metavar="P", help="partition")
    command.add_argument("--account", type=_line, metavar="A", help="account that pays")
    command.add_argument("--constraint", type=_line, metavar="C", help="features that the nodes must have")
    command.add_argument(
        "--job-name", type=_line, default="alchemist", metavar="J", help="name of the job (default: %(default)s)"
    )
    command.add_argument(
        "--sbatch-option",
        type=_sbatch_option,
        action="append",
        default=[],
        metavar="OPTION",
        help="another option of sbatch, such as mem=0 or exclusive",
    )
    command.add_argument(
        "--serve-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option of `alchemist serve`, such as --serve-option=--memory-per-worker=4GiB",
    )
    command.add_argument(
        "--node-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option of `alchemist node`, such as --node-option=--log-dir=logs",
    )
    command.add_argument("--port", type=port, default=0, metavar="P", help="port of the driver (default: a free one)")
    command.add_argument(
        "--token-dir",
        type=_line,
        metavar="D",
        help="directory that all nodes share. The job makes .alchemist-JOBID there, which only you can read, for the "
        "server's token, and removes it at the end (default: the current directory)",
    )
    command.add_argument("--print", action="store_true", help="print the script for sbatch, and submit nothing")
    command.add_argument("--wait", action="store_true", help="wait until the job has ended; return its exit status")
    command.add_argument("program", nargs="*", metavar="PROGRAM", help="after --: the program and its arguments")


def _submit(arguments: argparse.Namespace) -> int:
    if not arguments.program:
        arguments.refuse("name the program after --, e.g. -- python script.py")
    job = SlurmJob(
        nodes=arguments.nodes,
        workers_per_node=arguments.workers_per_node,
        program=tuple(arguments.program),
        sbatch_options=tuple(_sbatch_options(arguments)),
        time=arguments.time or "",
        name=arguments.job_name,
        port=arguments.port,
        token_dir=os.path.abspath(arguments.token_dir) if arguments.token_dir else "",
        serve_options=tuple(arguments.serve_option),
        node_options=tuple(arguments.node_option),
    )
    if arguments.print:
        print(job.script(), end="")
        return 0
    return submit(job, arguments.wait, lambda number: print(f"Submitted job {number}", flush=True))


def _sbatch_options(arguments: argparse.Namespace) -> list[str]:
    named = {name: getattr(arguments, name) for name in ("partition", "account", "constraint")}
    return [*(f"--{name}={shlex.quote(value)}" for name, value in named.items() if value), *arguments.sbatch_option]


def _time(text: str) -> str:
    """Return a time in one of Slurm's formats, as it was given."""
    try:
        seconds_of(text)
    except ValueError as failure:
        raise argparse.ArgumentTypeError(str(failure)) from failure
    return text


def _line(text: str) -> str:
    """Return a text that fits into a line of the script."""
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is empty, or has characters that cannot be printed")
    return text


def _sbatch_option(text: str) -> str:
    """Return an option of sbatch with its dashes, which may be omitted."""
    return _line(text) if text.startswith("-") else f"--{_line(text)}"
