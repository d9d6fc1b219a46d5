"""The command ``alchemist run``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from alchemist_ray.training.descriptions import as_text
from alchemist_ray.training.loading import load_experiment, to_yaml
from alchemist_ray.training.shipped import find_experiment, list_shipped

__all__ = ["describe", "dry_run", "list_shipped", "run"]

INTERRUPTED = 130


def describe() -> str:
    """Return the keys of an experiment with their meaning and defaults."""
    return as_text()


def dry_run(file: str, overrides: Sequence[str], results: str | None = None) -> str:
    """Check an experiment; return it as YAML with all defaults.

    Raises
    ------
    ExperimentError
        If its file is wrong, or gymnasium or RLlib would refuse it.
    """
    path = find_experiment(file)
    experiment = load_experiment(path, overrides, results=results)
    from alchemist_ray.training.results import resolved  # later, since RLlib takes a while to import
    from alchemist_ray.training.runner import check

    check(experiment, path)
    return to_yaml(resolved(experiment))


def run(
    file: str,
    overrides: Sequence[str],
    *,
    results: str | None = None,
    resume: bool,
    evaluate_only: bool,
    report: Path | None,
    say: Callable[[str], None],
) -> int:
    """Run an experiment; return the command's exit status.

    Raises
    ------
    ExperimentError
        If the experiment is wrong, or a training failed.
    """
    path = find_experiment(file)
    experiment = load_experiment(path, overrides, results=results)
    from alchemist_ray.training.runner import run_experiment

    command = _command(file, [override for override in overrides if not override.startswith("results=")])
    outcome = run_experiment(
        experiment, file=path, resume=resume, evaluate_only=evaluate_only, command=command, say=say
    )
    if outcome.interrupted:
        where = f" --results {shlex.quote(results)}" if results is not None else ""
        say(f"Stopped. To continue: {_command(file, overrides)}{where} --resume")
        return INTERRUPTED
    say(f"Results are in {outcome.directory}")
    if report is not None:
        from alchemist_ray.training.report import copy_report

        copy_report(outcome.directory, report)
        say(f"The report is in {report}")
    return 0


def _command(file: str, overrides: Sequence[str]) -> str:
    changed = (part for override in overrides for part in ("--set", override))
    return shlex.join(["alchemist", "run", file, *changed])
