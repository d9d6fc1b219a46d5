"""After the training: policies and baselines are evaluated, and the results written and drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alchemist_ray.errors import ExperimentError
from alchemist_ray.training import figures, results
from alchemist_ray.training.comparison import Assessment
from alchemist_ray.training.environments import make_environment, raising, server_token
from alchemist_ray.training.evaluation import Evaluation, evaluate, units_of_actions
from alchemist_ray.training.fields import draw_fields, write_animation
from alchemist_ray.training.figures import CurveEvaluations
from alchemist_ray.training.policies import PolicyMaker, TrainedPolicy
from alchemist_ray.training.recording import Recording
from alchemist_ray.training.schema import Experiment
from alchemist_ray.training.training import SEARCH_KEYS, Training


def evaluate_and_draw(
    experiment: Experiment,
    directory: Path,
    trainings: Sequence[Training],
    rows: Sequence[Mapping[str, Any]],
    baselines: Mapping[str, PolicyMaker],
    say: Callable[[str], None],
) -> Assessment:
    """Evaluate; write the evaluations and draw them."""
    chosen = _chosen(experiment, trainings)
    makers = {_policy_name(experiment, t, chosen): _load(experiment, t) for t in chosen}
    reference = _reference(experiment)
    shown = [next(iter(makers)), *([reference] if reference is not None else [])]
    say(f"Evaluating {', '.join([*makers, *baselines])} on {len(experiment.evaluation.seeds)} seeds")
    with _Bench(experiment, chosen[0].env_config) as bench:
        evaluations = bench.evaluate({**makers, **baselines}, experiment.evaluation.seeds, shown)
        curve = _curve(experiment, directory, dict(zip(makers, chosen, strict=True)), evaluations, baselines, bench)
    found = Assessment(
        {name: evaluations[name] for name in makers}, {name: evaluations[name] for name in baselines}, reference
    )
    results.write_evaluations(directory, experiment, found, dict(zip(makers, chosen, strict=True)))
    figures.draw_curve(directory / "curve.png", rows, curve, experiment.name, banded=experiment.search is None)
    return replace(found, notes=_draw_episode(experiment, directory, evaluations, bench))


def _curve(
    experiment: Experiment,
    directory: Path,
    chosen: Mapping[str, Training],
    evaluations: Mapping[str, Evaluation],
    baselines: Mapping[str, PolicyMaker],
    bench: _Bench,
) -> CurveEvaluations:
    """Return the evaluations that the curve shows: policy and baselines on the same seeds.

    These are the seeds of the evaluations during the training, if there were any, otherwise those of the table.
    """
    seeds, during = experiment.evaluation.seeds, results.seeds_during_training(directory)
    if during and set(during) != set(seeds):
        return CurveEvaluations(during, bench.evaluate(baselines, during), [])
    final = [
        (t.checkpoint_timesteps, evaluations[name].total.mean) for name, t in chosen.items() if t.checkpoint_timesteps
    ]
    return CurveEvaluations(seeds, {name: evaluations[name] for name in baselines}, [] if during else final)


def _reference(experiment: Experiment) -> str | None:
    """Return the baseline that the other policies are compared with, if there is one."""
    return experiment.pictures.beside or next(iter(experiment.baselines), None)


def _chosen(experiment: Experiment, trainings: Sequence[Training]) -> list[Training]:
    """Return the trainings to evaluate: those of all seeds, or the best one of a search."""
    usable = [training for training in trainings if training.checkpoint is not None]
    if not usable:
        raise ExperimentError(
            experiment.name, ["the training ended before its first checkpoint, so no policy can be evaluated"]
        )
    if experiment.search is None:
        return usable
    by_returns, key = experiment.search.metric == "mean_return", SEARCH_KEYS[experiment.search.metric]

    def score(training: Training) -> float:
        value = results.last_return(training) if by_returns else float(training.metrics.get(key, math.nan))
        return -math.inf if math.isnan(value) else value

    return [max(usable, key=score)]


def _policy_name(experiment: Experiment, training: Training, chosen: Sequence[Training]) -> str:
    name = experiment.algorithm.name
    return f"{name}, seed {training.seed}" if len(chosen) > 1 else name


def _load(experiment: Experiment, training: Training) -> PolicyMaker:
    if training.checkpoint is None:
        raise ExperimentError(experiment.name, [f"training {training.number} has no checkpoint"])
    return TrainedPolicy.from_checkpoint(training.checkpoint).episode


class _Bench:
    """The environment in which policies are evaluated, and the pictures and units that it gives.

    Attributes
    ----------
    recordings : dict
        Name of a policy -> its recording.
    action_units : dict
        Name of a component of the action -> its unit.
    """

    def __init__(self, experiment: Experiment, config: Mapping[str, Any]) -> None:
        self._keys, self._pictures = experiment.evaluation, experiment.pictures
        self._wanted = max(self._pictures.fields, self._pictures.frames)
        self._environment: Any = make_environment(
            raising(config), token=server_token(experiment.server), render=self._wanted > 0
        )
        self.recordings: dict[str, Recording] = {}
        self.action_units = units_of_actions(self._environment)

    def evaluate(
        self, makers: Mapping[str, PolicyMaker], seeds: Sequence[int], shown: Sequence[str] = ()
    ) -> dict[str, Evaluation]:
        """Evaluate policies on the same seeds; record the first episode of those that are shown."""
        self.recordings |= {name: Recording(self._wanted, self._pictures.width) for name in shown}
        return {
            name: evaluate(
                self._environment,
                maker,
                seeds,
                info=self._keys.info,
                skip_steps=self._keys.skip_steps,
                max_steps=self._keys.max_steps,
                watch=self.recordings.get(name, _look_away) if shown else None,
            )
            for name, maker in makers.items()
        }

    def __enter__(self) -> _Bench:
        return self

    def __exit__(self, *raised: object) -> None:
        self._environment.close()


def _look_away(environment: Any, step: int) -> None:
    """Take no pictures; the series of the episode is recorded all the same."""


def _draw_episode(
    experiment: Experiment, directory: Path, evaluations: Mapping[str, Evaluation], bench: _Bench
) -> list[str]:
    """Draw the first evaluation episode; return remarks about what is not drawn."""
    keys = experiment.pictures
    episodes = {name: evaluations[name].episodes[0] for name in bench.recordings}
    title = f"{experiment.name}, evaluation seed {experiment.evaluation.seeds[0]}"
    notes = figures.draw_episode(directory / "episode.png", episodes, title, bench.action_units)
    for name, found in evaluations.items():
        series = found.episodes[0].series
        columns = list(dict.fromkeys(column for row in series for column in row))
        file = f"episode_{''.join(c if c.isalnum() else '_' for c in name)}.csv"
        results.write_csv(directory / file, ["step", *columns], [{"step": n, **row} for n, row in enumerate(series, 1)])
    seen = {name: recording for name, recording in bench.recordings.items() if recording.pictures}
    if not seen:
        reasons = {recording.reason for recording in bench.recordings.values() if recording.reason}
        return [*notes, *[f"The fields could not be drawn: {reason}" for reason in sorted(reasons)]]
    if keys.fields:
        notes += draw_fields(directory / "fields.png", seen, keys.fields)
    if keys.frames:
        write_animation(
            directory / "animation.gif",
            seen,
            frames=keys.frames,
            frames_per_second=keys.frames_per_second,
            max_bytes=keys.max_bytes,
        )
    return notes
