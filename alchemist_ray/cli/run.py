"""``alchemist run``: a reinforcement learning experiment."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from alchemist_ray.errors import ExperimentError


def add(commands: Any) -> None:
    """Add the command."""
    run = commands.add_parser("run", help="run a reinforcement learning experiment", description=_run.__doc__)
    run.set_defaults(run=_run, refuse=run.error)
    run.add_argument(
        "file",
        nargs="?",
        metavar="EXPERIMENT",
        help="a YAML file, or the name of a shipped experiment (see --list)",
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a key instead of the file: stop.seconds=60",
    )
    run.add_argument("--results", metavar="DIR", help="where results go (default: the file's choice, or results/NAME)")
    how = run.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="continue a run that was stopped or killed")
    how.add_argument("--evaluate-only", action="store_true", help="evaluate the checkpoints of a run; do not train")
    how.add_argument("--dry-run", action="store_true", help="check the experiment, and print it with all defaults")
    how.add_argument("--list", action="store_true", help="print the shipped experiments")
    how.add_argument("--describe", action="store_true", help="print the keys of an experiment with their defaults")
    run.add_argument("--report", type=Path, metavar="DIR", help="copy the small result files to DIR")


def _run(arguments: argparse.Namespace) -> int:
    """Run a reinforcement learning experiment: train, evaluate beside baselines, and keep curves and pictures."""
    try:
        from alchemist_ray.training.command import describe, dry_run, list_shipped, run
    except ModuleNotFoundError as missing:
        raise ExperimentError("alchemist run", [f"{missing}: pip install 'alchemist-ray[all]'"]) from missing
    if arguments.describe:
        print(describe())
        return 0
    if arguments.list:
        print(list_shipped())
        return 0
    if arguments.file is None:
        arguments.refuse("name an experiment: a YAML file, or one of those that --list prints")
    if arguments.dry_run:
        print(dry_run(arguments.file, arguments.set, arguments.results), end="")
        return 0
    how = {name: getattr(arguments, name) for name in ("results", "resume", "evaluate_only", "report")}
    return run(arguments.file, arguments.set, say=functools.partial(print, flush=True), **how)
