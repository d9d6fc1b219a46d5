"""An experiment from its file to its results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alchemist_ray.errors import ExperimentError
from alchemist_ray.training import figures, results
from alchemist_ray.training.algorithms import algorithm_config, validate
from alchemist_ray.training.environments import (
    env_config,
    make_environment,
    offer_workers,
    raising,
    server_token,
    workers_wanted,
)
from alchemist_ray.training.evaluation import Evaluation, Statistics, evaluate
from alchemist_ray.training.policies import PolicyMaker, TrainedPolicy, baseline
from alchemist_ray.training.recording import Recording
from alchemist_ray.training.report import PAGE, differences, differences_table, improvements, table, write_page
from alchemist_ray.training.schema import Experiment
from alchemist_ray.training.training import SEARCH_KEYS, Training, find_trainings, train

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What has come out of an experiment.

    Attributes
    ----------
    directory : Path
        Of the results.
    trainings : list of Training
    evaluations : dict
        Name of a policy -> how it fares, the trained ones first; empty if the training was interrupted.
    interrupted : bool
    """

    directory: Path
    trainings: list[Training]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    interrupted: bool = False


def check(experiment: Experiment, file: Path | None = None) -> dict[str, PolicyMaker]:
    """Check an experiment against gymnasium and RLlib, without starting anything; return its baselines.

    Raises
    ------
    ExperimentError
        If it makes no sense.
    """
    validate(experiment, algorithm_config(experiment))
    directory = file.resolve().parent if file is not None else None
    return {name: baseline(experiment.name, name, keys, directory) for name, keys in experiment.baselines.items()}


def run_experiment(
    experiment: Experiment,
    *,
    file: Path | None = None,
    resume: bool = False,
    evaluate_only: bool = False,
    command: str = "",
    say: Say = print,
) -> Outcome:
    """Train, evaluate, and keep what has come out.

    Parameters
    ----------
    experiment : Experiment
    file : Path, optional
        Its YAML; baselines may be functions of modules beside it.
    resume : bool
        Whether to go on where the checkpoints of the last run are.
    evaluate_only : bool
        Whether to evaluate the checkpoints that there are, without training.
    command : str, optional
        By which it is run, for the report, but for these two.
    say : callable
        Is given a line of text at a time.

    Raises
    ------
    ExperimentError
        If the experiment makes no sense, or a training has failed.
    AlchemistError
        If the simulation cannot be made: no server, not enough workers, no such library or parameter.
    """
    directory = Path(experiment.results or Path("results") / experiment.name)
    baselines = check(experiment, file)
    if resume or evaluate_only:
        results.check_same(experiment, directory, resume=resume)
    else:
        results.check_fresh(experiment, directory)
    offer_workers(workers_wanted(experiment))
    _try_out(experiment, baselines)
    by = command or f"alchemist run {file.name if file is not None else 'experiment.yaml'}"
    flags = f"{' --resume' if resume else ''}{' --evaluate-only' if evaluate_only else ''}"
    results.write_experiment(experiment, directory, f"{by}{flags}", resume=resume, evaluate_only=evaluate_only)
    if evaluate_only:
        trainings, interrupted = find_trainings(experiment, directory), False
    else:
        trainings, interrupted = train(experiment, directory, resume=resume, say=say)
    rows = [row for training in trainings for row in results.curve_of(training)]
    results.write_csv(directory / "curve.csv", results.CURVE, rows)
    if interrupted:
        return Outcome(directory, trainings, interrupted=True)
    evaluations, notes = _evaluate_and_draw(experiment, directory, trainings, rows, baselines, say)
    reference = _reference(experiment)
    write_page(directory / PAGE, experiment, trainings, evaluations, reference, notes)
    say(table(evaluations, reference))
    if len(evaluations) > 1 and reference is not None:
        say(f"\n{differences_table(evaluations, reference)}")
    return Outcome(directory, trainings, evaluations)


def _try_out(experiment: Experiment, baselines: Mapping[str, PolicyMaker]) -> None:
    """Begin an episode with each baseline: what is wrong with the simulation or them is said before the training."""
    with closing(make_environment(env_config(experiment), token=server_token(experiment.server))) as environment:
        observation, _ = environment.reset(seed=experiment.seeds[0])
        for maker in baselines.values():
            environment.step(maker(environment, 0)(observation, 0))
            environment.reset(seed=experiment.seeds[0])


# --- after the training -----------------------------------------------------------------------------------------------


def _reference(experiment: Experiment) -> str | None:
    """Return the baseline that others are compared with, if there is one."""
    return experiment.pictures.beside or next(iter(experiment.baselines), None)


def _evaluate_and_draw(
    experiment: Experiment,
    directory: Path,
    trainings: Sequence[Training],
    rows: Sequence[Mapping[str, Any]],
    baselines: Mapping[str, PolicyMaker],
    say: Say,
) -> tuple[dict[str, Evaluation], list[str]]:
    """Evaluate, write what was found and draw it; return it, and what is to be said about it."""
    chosen = _chosen(experiment, trainings)
    makers = {_policy_name(experiment, t, chosen): _load(experiment, t) for t in chosen}
    reference = _reference(experiment)
    shown = [next(iter(makers)), *([reference] if reference is not None else [])]
    say(f"Evaluating {', '.join([*makers, *baselines])} on {len(experiment.evaluation.seeds)} seeds")
    evaluations, recordings = _evaluate(experiment, chosen[0].env_config, {**makers, **baselines}, shown)
    over_trainings = Statistics.of([evaluations[name].total.mean for name in makers])
    results.write_json(
        directory / "evaluation.json",
        {
            "seeds": experiment.evaluation.seeds,
            "policies": {name: found.to_row() for name, found in evaluations.items()},
            "over_trainings": vars(over_trainings),
            "reference": reference,
            "relative_change": improvements(evaluations, reference),
            "paired_difference": {name: row.to_row() for name, row in differences(evaluations, reference).items()},
            "checkpoints": {
                name: str(training.checkpoint.relative_to(directory.resolve()))
                for name, training in zip(makers, chosen, strict=True)
                if training.checkpoint is not None
            },
        },
    )
    notes = _draw(experiment, directory, rows, evaluations, recordings, list(baselines))
    if len(makers) > 1:
        notes.insert(0, f"Over the {len(makers)} trainings, the return is {over_trainings} (mean ± standard error).")
    return evaluations, notes


def _chosen(experiment: Experiment, trainings: Sequence[Training]) -> list[Training]:
    """Return the trainings that are evaluated: all seeds, or the best of a search."""
    usable = [training for training in trainings if training.checkpoint is not None]
    if not usable:
        raise ExperimentError(experiment.name, ["no checkpoint to evaluate: the training ended before the first"])
    if experiment.search is None:
        return usable
    metric = SEARCH_KEYS[experiment.search.metric]

    def score(training: Training) -> float:
        value = float(training.metrics.get(metric, math.nan))
        return -math.inf if math.isnan(value) else value

    return [max(usable, key=score)]


def _policy_name(experiment: Experiment, training: Training, chosen: Sequence[Training]) -> str:
    name = experiment.algorithm.name
    return f"{name}, seed {training.seed}" if len(chosen) > 1 else name


def _load(experiment: Experiment, training: Training) -> PolicyMaker:
    if training.checkpoint is None:
        raise ExperimentError(experiment.name, [f"training {training.number} has no checkpoint"])
    return TrainedPolicy.from_checkpoint(training.checkpoint).episode


def _evaluate(
    experiment: Experiment, config: Mapping[str, Any], makers: Mapping[str, PolicyMaker], shown: Sequence[str]
) -> tuple[dict[str, Evaluation], dict[str, Recording]]:
    """Evaluate policies on the same seeds; record the first episode of those that are shown."""
    keys, pictures = experiment.evaluation, experiment.pictures
    wanted = max(pictures.fields, pictures.frames)
    recordings = {name: Recording(wanted, pictures.width) for name in shown}
    token = server_token(experiment.server)
    with closing(make_environment(raising(config), token=token, render=wanted > 0)) as environment:
        evaluations = {
            name: evaluate(
                environment,
                maker,
                keys.seeds,
                info=keys.info,
                skip_steps=keys.skip_steps,
                max_steps=keys.max_steps,
                watch=recordings.get(name, _look_away),
            )
            for name, maker in makers.items()
        }
    return evaluations, recordings


def _look_away(environment: Any, step: int) -> None:
    """Record the series of an episode, but no pictures."""


def _draw(
    experiment: Experiment,
    directory: Path,
    rows: Sequence[Mapping[str, Any]],
    evaluations: Mapping[str, Evaluation],
    recordings: Mapping[str, Recording],
    baselines: Sequence[str],
) -> list[str]:
    """Draw all figures; return what is to be said about those that there are not."""
    keys = experiment.pictures
    figures.draw_curve(directory / "curve.png", rows, {name: evaluations[name] for name in baselines}, experiment.name)
    episodes = {name: evaluations[name].episodes[0] for name in recordings}
    seed = experiment.evaluation.seeds[0]
    figures.draw_episode(directory / "episode.png", episodes, f"{experiment.name}, seed {seed}")
    for name, found in evaluations.items():
        series = found.episodes[0].series
        columns = list(dict.fromkeys(column for row in series for column in row))
        file = f"episode_{''.join(c if c.isalnum() else '_' for c in name)}.csv"
        results.write_csv(directory / file, ["step", *columns], [{"step": n, **row} for n, row in enumerate(series, 1)])
    seen = {name: recording for name, recording in recordings.items() if recording.pictures}
    if not seen:
        reasons = {recording.reason for recording in recordings.values() if recording.reason}
        return [f"There are no pictures of fields: {reason}" for reason in sorted(reasons)]
    if keys.fields:
        figures.draw_fields(directory / "fields.png", seen, keys.fields)
    if keys.frames:
        figures.write_animation(
            directory / "animation.gif",
            seen,
            frames=keys.frames,
            frames_per_second=keys.frames_per_second,
            max_bytes=keys.max_bytes,
        )
    return []
