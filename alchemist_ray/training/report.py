"""The report of an experiment: a page with its table and pictures, and a copy of what is small."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.evaluation import Differences, Evaluation, Statistics
from alchemist_ray.training.progress import duration
from alchemist_ray.training.results import RUNS, runs_of
from alchemist_ray.training.results import differences as changes
from alchemist_ray.training.schema import Experiment
from alchemist_ray.training.training import Training

PAGE = "README.md"

SMALL = (
    PAGE, "experiment.yaml", "versions.json", RUNS, "evaluation.json", "curve.csv", "curve.png", "episode.png",
    "fields.png", "animation.gif",
)  # fmt: skip
"""What a report consists of."""


def write_page(
    path: Path,
    experiment: Experiment,
    trainings: Sequence[Training],
    evaluations: Mapping[str, Evaluation],
    reference: str | None,
    notes: Sequence[str],
) -> None:
    """Write the page, beside the record of the runs.

    Parameters
    ----------
    path : Path
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
    runs = runs_of(directory)
    parts = [
        f"# {experiment.name}",
        experiment.description.strip(),
        f"{_what(experiment)}. {_commands(runs)}",
        _evaluation_text(experiment, reference),
        table(evaluations, reference),
        *_failures(evaluations),
        *_differences_part(evaluations, reference),
        *_whole_info_part(experiment, evaluations),
        _trainings_text(experiment, trainings),
        _trainings_table(experiment, trainings) if len(trainings) > 1 else "",
        *notes,
        *[f"![{text}]({name})" for name, text in _PICTURES.items() if (directory / name).exists()],
        _versions_text(directory, runs),
        "[experiment.yaml](experiment.yaml) has all settings, [evaluation.json](evaluation.json) each episode, "
        "[curve.csv](curve.csv) each iteration, [versions.json](versions.json) what it was trained with, "
        f"[{RUNS}]({RUNS}) the commands and what each was run with.",
    ]
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


_PICTURES = {
    "curve.png": "returns against steps",
    "episode.png": "the first evaluation episode, step by step",
    "fields.png": "fields in the first evaluation episode",
    "animation.gif": "the first evaluation episode",
}


def table(evaluations: Mapping[str, Evaluation], reference: str | None) -> str:
    """Return means ± standard errors over the seeds, as markdown; with changes against the reference.

    A column says how many episodes have failed, if any has.
    """
    infos = _names(found.info for found in evaluations.values())
    counted = any(found.failed for found in evaluations.values())
    base = evaluations.get(reference) if reference is not None else None
    rows = []
    for name, found in evaluations.items():
        other = base if base is not found else None
        rows.append([
            name,
            *([f"{len(found.failed)} of {len(found.episodes)} failed"] if counted else []),
            _cell(found.total, other.total if other is not None else None),
            str(found.reward),
            *[_cell(found.info.get(key), other.info.get(key) if other is not None else None) for key in infos],
        ])  # fmt: skip
    return _table(["policy", *(["episodes"] if counted else []), "return", "reward a step", *infos], rows)


def differences_table(evaluations: Mapping[str, Evaluation], reference: str | None) -> str:
    """Return the differences from the reference, paired by seeds: means ± standard errors, as markdown."""
    found = differences(evaluations, reference)
    infos = _names(row.info for row in found.values())
    rows = [
        [name, str(row.total), str(row.reward), *[_cell(row.info.get(key), None) for key in infos]]
        for name, row in found.items()
    ]
    return _table([f"less {reference}", "return", "reward a step", *infos], rows) if rows else ""


def differences(evaluations: Mapping[str, Evaluation], reference: str | None) -> dict[str, Differences]:
    """Return the differences of all others from the reference."""
    base = evaluations.get(reference) if reference is not None else None
    others = evaluations.items() if base is not None else ()
    return {name: Differences.of(found, base) for name, found in others if base is not None and name != reference}


def whole_info_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Return means of info over all steps of the episodes ± standard errors over the seeds, as markdown."""
    infos = _names(found.whole_info for found in evaluations.values())
    rows = [[name, *[_cell(found.whole_info.get(key), None) for key in infos]] for name, found in evaluations.items()]
    return _table(["policy", *infos], rows)


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_line(head), _line(["---"] * len(head)), *map(_line, rows)])


def _cell(found: Statistics | None, base: Statistics | None) -> str:
    if found is None or math.isnan(found.mean):
        return ""
    change = relative_change(found, base) if base is not None else math.nan
    return str(found) if math.isnan(change) else f"{found} ({100 * change:+.1f} %)"


def relative_change(found: Statistics, base: Statistics) -> float:
    """Return (found - base) / |base| of means; NaN where the base is zero."""
    return (found.mean - base.mean) / abs(base.mean) if base.mean else math.nan


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _commands(runs: Sequence[Mapping[str, Any]]) -> str:
    said = "\n".join(run["command"] for run in runs)
    return f"The command{'s' if len(runs) > 1 else ''}:\n\n```sh\n{said}\n```"


def _failures(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return what is said of failed episodes, if there are any."""
    failed = {name: found.failed[0] for name, found in evaluations.items() if found.failed}
    if not failed:
        return []
    first = "; ".join(f"{name}, seed {episode.seed}: {episode.failure}" for name, episode in failed.items())
    return [f"Failed episodes are left out of the means, so these are too good. The first of each policy: {first}"]


def _differences_part(evaluations: Mapping[str, Evaluation], reference: str | None) -> list[str]:
    rows = differences_table(evaluations, reference)
    if not rows:
        return []
    return [f"Differences from {reference}, paired by seeds: means ± standard errors of the differences.", rows]


def _whole_info_part(experiment: Experiment, evaluations: Mapping[str, Evaluation]) -> list[str]:
    if not experiment.evaluation.skip_steps:
        return []
    return ["Means of info over whole episodes, the first steps included:", whole_info_table(evaluations)]


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
    seeds = ranges_of(keys.seeds)
    return (
        f"Evaluated without exploration on {len(keys.seeds)} seeds not trained on ({seeds}), one episode each. "
        f"Means{skipped} ± standard errors over the seeds{against}. The seeds are the environment's: what it gave the "
        "simulation is `simulation_seed` in evaluation.json."
    )


def ranges_of(numbers: Sequence[int]) -> str:
    """Return numbers as text, three and more that follow one another as a range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


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
        rows.append([str(training.number), str(training.seed), *chosen, steps, f"{training.score:.4g}"])
    return _table(["training", "seed", *paths, "steps", "mean return at the end"], rows)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions_text(directory: Path, runs: Sequence[Mapping[str, Any]]) -> str:
    """Return what the training was run with, and where the last run differs from that."""
    found = json.loads((directory / "versions.json").read_text(encoding="utf-8"))
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    text = f"Trained with Python {found['python']}, {found['mpi'] or 'no MPI'}, {packages}, on {found['processor']}."
    others = [f"{path} {now}, not {then}" for path, then, now in changes(found, runs[-1]["versions"])] if runs else []
    return f"{text} The last run was with other versions: {'; '.join(others)}." if others else text


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
