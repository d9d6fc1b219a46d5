"""The report of an experiment: a page with tables and pictures, and a copy of the small result files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.comparison import Assessment
from alchemist_ray.training.evaluation import Evaluation
from alchemist_ray.training.progress import duration
from alchemist_ray.training.results import RUNS, last_return, runs_of
from alchemist_ray.training.results import differences as changes
from alchemist_ray.training.schema import Experiment
from alchemist_ray.training.tables import (
    as_table,
    differences_table,
    policies_table,
    ranges_of,
    spread_table,
    whole_info_table,
)
from alchemist_ray.training.training import Training

PAGE = "README.md"

SMALL = (
    PAGE, "experiment.yaml", "versions.json", RUNS, "evaluation.json", "curve.csv", "curve.png", "episode.png",
    "fields.png", "animation.gif",
)  # fmt: skip
"""The files of a report."""


def write_page(path: Path, experiment: Experiment, trainings: Sequence[Training], found: Assessment) -> None:
    """Write the page. The record of the runs must be in the same directory."""
    directory = path.parent
    runs = runs_of(directory)
    parts = [
        f"# {experiment.name}",
        experiment.description.strip(),
        f"{_what(experiment)}. {_commands(runs)}",
        _evaluation_text(experiment),
        policies_table(found.evaluations),
        *_failures(found.evaluations),
        *_spread_part(experiment, found.trained),
        *_differences_part(found),
        *_whole_info_part(experiment, found.evaluations),
        _trainings_text(experiment, trainings),
        _trainings_table(experiment, trainings) if len(trainings) > 1 else "",
        _seeds_text(experiment),
        *found.notes,
        *[f"![{text}]({name})" for name, text in _PICTURES.items() if (directory / name).exists()],
        _versions_text(directory, runs),
        "[experiment.yaml](experiment.yaml) has all settings, [evaluation.json](evaluation.json) each episode, "
        "[curve.csv](curve.csv) each iteration, [versions.json](versions.json) the software of the training, "
        f"[{RUNS}]({RUNS}) each command and its software.",
    ]
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


_PICTURES = {
    "curve.png": "returns against steps",
    "episode.png": "the first evaluation episode, step by step",
    "fields.png": "fields in the first evaluation episode",
    "animation.gif": "the first evaluation episode",
}


def _commands(runs: Sequence[Mapping[str, Any]]) -> str:
    said = "\n".join(run["command"] for run in runs)
    return f"The command{'s' if len(runs) > 1 else ''}:\n\n```sh\n{said}\n```"


def _failures(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return what is said of failed episodes, if there are any."""
    failed = {name: found.failed[0] for name, found in evaluations.items() if found.failed}
    if not failed:
        return []
    first = "; ".join(f"{name}, seed {episode.seed}: {episode.failure}" for name, episode in failed.items())
    return [f"The means skip failed episodes, so they are too good. The first failure of each policy: {first}"]


def _spread_part(experiment: Experiment, trained: Mapping[str, Evaluation]) -> list[str]:
    rows = spread_table(experiment.algorithm.name, trained)
    if not rows:
        return []
    return [f"Over the {len(trained)} trainings: mean ± standard deviation of the trainings' means.", rows]


def _differences_part(found: Assessment) -> list[str]:
    rows = differences_table(found.evaluations, found.reference)
    if not rows:
        return []
    return [f"Differences from {found.reference}, paired by seeds: means ± standard errors of the differences.", rows]


def _whole_info_part(experiment: Experiment, evaluations: Mapping[str, Evaluation]) -> list[str]:
    if not experiment.evaluation.skip_steps:
        return []
    return ["Means of info over whole episodes, including the first steps:", whole_info_table(evaluations)]


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


def _evaluation_text(experiment: Experiment) -> str:
    keys = experiment.evaluation
    skipped = f" (of info after the first {keys.skip_steps} steps)" if keys.skip_steps else ""
    return (
        f"Evaluated without exploration, one episode for each of {len(keys.seeds)} seeds that no training begins with "
        f"({ranges_of(keys.seeds)}). Means{skipped} ± standard errors over these seeds. The seeds are the "
        "environment's; evaluation.json has the seed that it gave the simulation as `simulation_seed`."
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
    rows = []
    for training in trainings:
        chosen = [_shown(training.sampled.get(path)) for path in paths]
        steps = f"{int(training.metrics.get('timesteps', 0)):,}"
        rows.append([str(training.number), str(training.seed), *chosen, steps, f"{last_return(training):.4g}"])
    return as_table(["training", "seed", *paths, "steps", "mean return of its last episodes"], rows)


def _seeds_text(experiment: Experiment) -> str:
    """Return what the seeds fix, and how much a result says about other seeds."""
    fixed = (
        "A seed fixes the initial weights, the exploration, the order of the batches and the seeds of all episodes: on "
        "the same machine with the same versions, a training repeats bit for bit."
        if experiment.repeatable
        else "A seed fixes the initial weights, and the seeds that the episodes of each process follow from. It does "
        "not fix the order in which the processes deliver samples: a training does not repeat bit for bit."
    )
    other = "Another processor or version changes the last digits, and a training amplifies such differences."
    if len(experiment.seeds) > 1:
        return f"{fixed} {other}"
    return f"{fixed} {other} This is one seed: it does not show how far a training with another seed would differ."


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions_text(directory: Path, runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the versions of the training, and those of the last run that differ."""
    found = json.loads((directory / "versions.json").read_text(encoding="utf-8"))
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    text = f"Trained with Python {found['python']}, {found['mpi'] or 'no MPI'}, {packages}, on {found['processor']}."
    others = [f"{path} {now}, not {then}" for path, then, now in changes(found, runs[-1]["versions"])] if runs else []
    return f"{text} The last run had other versions: {'; '.join(others)}." if others else text


def copy_report(directory: Path, target: Path) -> None:
    """Copy the small result files: the page, its pictures, settings and tables, but no checkpoints.

    Raises
    ------
    ExperimentError
        If the directory has no report yet.
    """
    if not (directory / PAGE).exists():
        raise ExperimentError(str(directory), ["it has no report yet: the experiment must be evaluated first"])
    target.mkdir(parents=True, exist_ok=True)
    for name in SMALL:
        if (directory / name).exists():
            shutil.copyfile(directory / name, target / name)
