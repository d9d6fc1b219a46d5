"""The report of an experiment: a page with its table and pictures, and a copy of what is small."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alchemist_ray.errors import ExperimentError
from alchemist_ray.experiment.evaluation import Evaluation, Statistics
from alchemist_ray.experiment.progress import duration
from alchemist_ray.experiment.results import versions
from alchemist_ray.experiment.schema import Experiment
from alchemist_ray.experiment.training import Training

PAGE = "README.md"

SMALL = (
    PAGE, "experiment.yaml", "versions.json", "evaluation.json", "curve.csv", "curve.png", "episode.png", "fields.png",
    "animation.gif",
)  # fmt: skip
"""What a report consists of."""


def write_page(
    path: Path,
    command: str,
    experiment: Experiment,
    trainings: Sequence[Training],
    evaluations: Mapping[str, Evaluation],
    reference: str | None,
    notes: Sequence[str],
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
    command : str
        That has made the results.
    experiment : Experiment
    trainings : sequence of Training
    evaluations : mapping
        Name of a policy -> how it fares, in the order of the table.
    reference : str, optional
        The policy that others are compared with.
    notes : sequence of str
        What else is to be said.
    """
    directory = path.parent
    parts = [
        f"# {experiment.name}",
        experiment.description,
        f"{_what(experiment)}. The command:\n\n```sh\n{command}\n```",
        _evaluation_text(experiment, reference),
        table(evaluations, reference),
        _trainings_text(experiment, trainings),
        _trainings_table(experiment, trainings) if len(trainings) > 1 else "",
        *notes,
        *[f"![{text}]({name})" for name, text in _PICTURES.items() if (directory / name).exists()],
        _versions_text(),
        "[experiment.yaml](experiment.yaml) has all settings, [evaluation.json](evaluation.json) each episode, "
        "[curve.csv](curve.csv) each iteration, [versions.json](versions.json) what it was run with.",
    ]
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


_PICTURES = {
    "curve.png": "returns against steps",
    "episode.png": "the first evaluation episode, step by step",
    "fields.png": "fields in the first evaluation episode",
    "animation.gif": "the first evaluation episode",
}


def table(evaluations: Mapping[str, Evaluation], reference: str | None) -> str:
    """Return means ± standard errors over the seeds, as markdown; with changes against the reference."""
    infos = list(dict.fromkeys(name for found in evaluations.values() for name in found.info))
    head = ["policy", "return", "reward a step", *infos]
    lines = [_line(head), _line(["---"] * len(head))]
    base = evaluations.get(reference) if reference is not None else None
    for name, found in evaluations.items():
        other = base if base is not found else None
        cells = [
            _cell(found.total, other.total if other is not None else None),
            str(found.reward),
            *[_cell(found.info.get(key), other.info.get(key) if other is not None else None) for key in infos],
        ]
        lines.append(_line([name, *cells]))
    return "\n".join(lines)


def _cell(found: Statistics | None, base: Statistics | None) -> str:
    if found is None:
        return ""
    change = relative_change(found, base) if base is not None else math.nan
    return str(found) if math.isnan(change) else f"{found} ({100 * change:+.1f} %)"


def relative_change(found: Statistics, base: Statistics) -> float:
    """Return (found - base) / |base| of means; NaN where the base is zero."""
    return (found.mean - base.mean) / abs(base.mean) if base.mean else math.nan


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _what(experiment: Experiment) -> str:
    environment = experiment.environment
    return f"{experiment.algorithm.name} on {environment.lib_name or environment.id}, {_ranks(experiment)}"


def _ranks(experiment: Experiment) -> str:
    environment, runners = experiment.environment, experiment.runners
    if not environment.is_ours:
        return "in-process"
    each = f"{environment.num_workers} MPI rank{'s' if environment.num_workers > 1 else ''}"
    count = runners.num_envs_per_env_runner * max(1, runners.num_env_runners)
    if count == 1:
        return f"one simulation on {each}"
    groups = count if runners.vectorize != "hpc" else runners.num_groups * max(1, runners.num_env_runners)
    return f"{count} simulations on {f'{groups} groups of ' if groups > 1 else ''}{each}"


def _evaluation_text(experiment: Experiment, reference: str | None) -> str:
    keys = experiment.evaluation
    against = f", in brackets the change against {reference}" if reference is not None else ""
    skipped = f" (of info after the first {keys.skip_steps} steps)" if keys.skip_steps else ""
    seeds = ", ".join(map(str, keys.seeds))
    return (
        f"Evaluated without exploration on {len(keys.seeds)} seeds not trained on ({seeds}), one episode each. "
        f"Means{skipped} ± standard errors over the seeds{against}."
    )


def _trainings_text(experiment: Experiment, trainings: Sequence[Training]) -> str:
    steps = sum(int(training.metrics.get("timesteps", 0)) for training in trainings)
    seconds = sum(float(training.metrics.get("time_total_s", 0.0)) for training in trainings)
    seeds = ", ".join(map(str, experiment.seeds))
    many = f"{len(trainings)} trainings" if len(trainings) > 1 else "One training"
    return (
        f"{many} with seed{'s' if len(experiment.seeds) > 1 else ''} {seeds}: {steps:,} steps in {duration(seconds)}, "
        f"the {experiment.evaluation.checkpoint} checkpoint evaluated."
    )


def _trainings_table(experiment: Experiment, trainings: Sequence[Training]) -> str:
    paths = list(experiment.search.space) if experiment.search is not None else []
    head = ["training", "seed", *paths, "steps", "mean return at the end"]
    lines = [_line(head), _line(["---"] * len(head))]
    for training in trainings:
        chosen = [_shown(training.sampled.get(path)) for path in paths]
        steps = f"{int(training.metrics.get('timesteps', 0)):,}"
        lines.append(_line([str(training.number), str(training.seed), *chosen, steps, f"{training.score:.4g}"]))
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions_text() -> str:
    found = versions()
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return f"Run with Python {found['python']}, {found['mpi'] or 'no MPI'}, {packages}, on {found['processor']}."


def copy_report(directory: Path, target: Path) -> None:
    """Copy what is small of the results: the page, its pictures, settings and tables; no checkpoints.

    Raises
    ------
    ExperimentError
        If there is no report yet.
    """
    if not (directory / PAGE).exists():
        raise ExperimentError(str(directory), ["there is no report: the experiment has not been evaluated"])
    target.mkdir(parents=True, exist_ok=True)
    for name in SMALL:
        if (directory / name).exists():
            shutil.copyfile(directory / name, target / name)


def improvements(evaluations: Mapping[str, Evaluation], reference: str | None) -> dict[str, Any]:
    """Return the relative changes against the reference, by policy."""
    base = evaluations.get(reference) if reference is not None else None
    if base is None:
        return {}
    return {
        name: {
            "return": relative_change(found.total, base.total),
            "info": {
                key: relative_change(statistics, base.info[key])
                for key, statistics in found.info.items()
                if key in base.info
            },
        }
        for name, found in evaluations.items()
        if name != reference
    }
